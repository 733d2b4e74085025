"""Deleting while things go on: what falls into a deletion is refused like anything that is not there."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import acme
import flows
import grpc
import pytest
from blobhub.v1 import (
    credential_pb2,
    definition_pb2,
    execution_pb2,
    limit_pb2,
    metadata_pb2,
    revision_pb2,
    session_object_pb2,
    session_pb2,
)
from blobhub_server.blobtypes.conformance import reason_of
from served import Api, connected, served

Calls = dict[str, Callable[[], Coroutine[Any, Any, Any]]]


async def filled(api: Api, document: str) -> str:
    """Make `acme/pipeline` with a definition, a commit as its default and a draft; return the id of a session on it."""
    await acme.blob(api)
    await api.put(document)
    commit = await api.revisions.CommitRevision(revision_pb2.CommitRevisionRequest(revision="acme/pipeline@draft"))
    await api.revisions.CreateRevision(revision_pb2.CreateRevisionRequest(blob="acme/pipeline"))
    return (await acme.session(api, commit.revision.id)).id


def on_the_blob(api: Api, session_id: str, draft_id: str) -> Calls:
    """Calls that add to a blob or change it, by name."""
    run = execution_pb2.StartExecutionRequest(session_id=session_id, definition="workflow")
    put = session_object_pb2.PutSessionObjectRequest(session_id=session_id, alias="one", value={"number_value": 1})
    remove = session_object_pb2.DeleteSessionObjectRequest(session_id=session_id, alias="none")
    close = session_pb2.CloseSessionRequest(session_id=session_id)
    limit = limit_pb2.SetLimitRequest(scope="acme/pipeline", name="blob.revisions", value=5)
    secret = credential_pb2.CreateCredentialRequest(owner="acme/pipeline", alias="c", type="test", body={"user": "nobody"})
    return {
        "CreateApiKey": lambda: acme.key(api, "acme/pipeline"),
        "CreateMember": lambda: acme.member(api, "acme/pipeline", "ann"),
        "CreateCredential": lambda: api.credentials.CreateCredential(secret),
        "SetLimit": lambda: api.limits.SetLimit(limit),
        "UpdateBlob": lambda: acme.update_blob(api, description="changed"),
        "CreateRevision": lambda: api.revisions.CreateRevision(revision_pb2.CreateRevisionRequest(blob="acme/pipeline")),
        "StartExecution": lambda: api.executions.StartExecution(run),
        "PutSessionObject": lambda: api.session_objects.PutSessionObject(put),
        "DeleteSessionObject": lambda: api.session_objects.DeleteSessionObject(remove),
        "CloseSession": lambda: api.sessions.CloseSession(close),
        **on_the_draft(api, draft_id),
    }


def on_the_draft(api: Api, draft_id: str) -> Calls:
    """Calls that add to a draft or change it, by name."""
    put = definition_pb2.PutDefinitionRequest(revision=draft_id, alias="another", document=flows.steps(1))
    remove = definition_pb2.DeleteDefinitionRequest(revision=draft_id, definition="workflow")
    record = metadata_pb2.CreateMetadataRequest(target=draft_id, key="key", value={"number_value": 1})
    return {
        "PutDefinition": lambda: api.definitions.PutDefinition(put),
        "DeleteDefinition": lambda: api.definitions.DeleteDefinition(remove),
        "CreateMetadata": lambda: api.metadata.CreateMetadata(record),
        "CreateSession": lambda: acme.session(api, draft_id),
        "UpdateRevision": lambda: api.revisions.UpdateRevision(revision_pb2.UpdateRevisionRequest(revision=draft_id)),
        "CommitRevision": lambda: api.revisions.CommitRevision(revision_pb2.CommitRevisionRequest(revision=draft_id)),
        "DiscardRevision": lambda: api.revisions.DiscardRevision(revision_pb2.DiscardRevisionRequest(revision=draft_id)),
    }


async def outcome(call: Coroutine[Any, Any, Any]) -> str:
    """`OK`, or the reason of the refusal."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return reason_of(error)
    return "OK"


@pytest.mark.parametrize("whole", ["blob", "organization"])
async def test_what_falls_into_the_deletion_of_a_blob_is_refused_as_absent(api: Api, whole: str) -> None:
    await acme.user(api, "ann")
    for name in on_the_blob(api, "", ""):
        await acme.organization(api)
        session_id = await filled(api, flows.steps(2))
        draft = await acme.get_revision(api, "acme/pipeline@draft")
        delete = acme.delete_blob if whole == "blob" else acme.delete_organization
        call = on_the_blob(api, session_id, draft.id)[name]
        deleted, *others = await asyncio.gather(outcome(delete(api, cascade=True)), *(outcome(call()) for _ in range(3)))
        assert deleted == "OK", name
        assert "INTERNAL" not in others, (name, others)
        if whole == "blob":
            assert await acme.delete_organization(api) == 0, f"{name} left something in the organization"


async def test_what_falls_into_the_discarding_of_a_draft_is_refused_as_absent(api: Api) -> None:
    await acme.organization(api)
    await filled(api, flows.steps(2))
    draft = await acme.get_revision(api, "acme/pipeline@draft")
    for name in on_the_draft(api, ""):
        call = on_the_draft(api, draft.id)[name]
        discard = revision_pb2.DiscardRevisionRequest(revision=draft.id)
        discarded, other = await asyncio.gather(outcome(api.revisions.DiscardRevision(discard)), outcome(call()))
        assert discarded in ("OK", "NOT_FOUND", "REVISION_IN_USE"), (name, discarded)
        assert other in ("OK", "NOT_FOUND", "PERMISSION_DENIED", "INVALID_CONTENT"), (name, other)
        branch = revision_pb2.CreateRevisionRequest(blob="acme/pipeline")
        draft = (await api.revisions.CreateRevision(branch)).revision


async def test_a_cascade_waits_for_what_runs_and_is_not_upset_by_it(api: Api) -> None:
    """Executions that are in the middle of writing are let finish that, and find their session gone afterwards."""
    names = [f"script-{number}" for number in range(40)]
    scripts = [flows.component(name, "logic.code", code="set_result('success')") for name in names]
    steps = [flows.control(first, second, "success") for first, second in itertools.pairwise(names)]
    document = flows.document([flows.component("start", "flow.start"), *scripts], [flows.control("start", names[0]), *steps])
    for round_ in range(4):
        await acme.organization(api)
        session_id = await filled(api, document)
        for _ in range(12):
            request = execution_pb2.StartExecutionRequest(session_id=session_id, definition="workflow")
            await api.executions.StartExecution(request)
        await asyncio.sleep(0.05 * round_)
        assert await acme.delete_organization(api, cascade=True) == 1


async def test_a_cascade_ends_the_step_that_is_being_run(tmp_path: Path, database_url: str) -> None:
    """It does not go on until it has something to write."""
    async with (
        served(tmp_path / "data", database_url, code_seconds=600) as server,
        connected(server.address, server.admin_key) as api,
    ):
        await acme.organization(api)
        session_id = await filled(api, flows.code("while True:\n    pass"))
        request = execution_pb2.StartExecutionRequest(session_id=session_id, definition="workflow")
        await api.executions.StartExecution(request)
        (step,) = [task for task in asyncio.all_tasks() if task.get_name() == "step script"]
        await acme.delete_blob(api, cascade=True)
        await asyncio.wait([step])
        assert step.cancelled()
