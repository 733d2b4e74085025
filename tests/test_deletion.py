"""Deleting while things go on: what falls into a deletion is refused like anything that is not there."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import acme
import flows
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
from calling import ask, outcome
from databases import collected, select
from populating import everything, populated
from scale import scaled
from served import Api, Served, connected, served

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
    run = execution_pb2.StartExecutionRequest(session=session_id, spec={"definition": "workflow"})
    put = session_object_pb2.PutSessionObjectRequest(session=session_id, alias="one", value={"number_value": 1})
    remove = session_object_pb2.DeleteSessionObjectRequest(session=session_id, alias="none")
    close = session_pb2.CloseSessionRequest(session=session_id)
    limit = limit_pb2.UpdateLimitRequest(parent="acme/pipeline", name="blob.revisions", value=5)
    secret = credential_pb2.CreateCredentialRequest(parent="acme/pipeline", alias="c", type="test", body={"user": "nobody"})
    return {
        "CreateApiKey": lambda: acme.key(api, "acme/pipeline"),
        "CreateMember": lambda: acme.member(api, "acme/pipeline", "ann"),
        "CreateCredential": lambda: api.credentials.CreateCredential(secret),
        "UpdateLimit": lambda: api.limits.UpdateLimit(limit),
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
    remove = definition_pb2.DeleteDefinitionRequest(definition=f"{draft_id}/workflow")
    record = metadata_pb2.CreateMetadataRequest(parent=draft_id, key="key", value={"number_value": 1})
    return {
        "PutDefinition": lambda: api.definitions.PutDefinition(put),
        "DeleteDefinition": lambda: api.definitions.DeleteDefinition(remove),
        "CreateMetadata": lambda: api.metadata.CreateMetadata(record),
        "CreateSession": lambda: acme.session(api, draft_id),
        "UpdateRevision": lambda: api.revisions.UpdateRevision(revision_pb2.UpdateRevisionRequest(revision=draft_id)),
        "CommitRevision": lambda: api.revisions.CommitRevision(revision_pb2.CommitRevisionRequest(revision=draft_id)),
        "DiscardRevision": lambda: api.revisions.DiscardRevision(revision_pb2.DiscardRevisionRequest(revision=draft_id)),
    }


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
            await acme.delete_organization(api)


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
    for round_ in range(scaled(4, least=2)):
        await acme.organization(api)
        session_id = await filled(api, document)
        for _ in range(12):
            request = execution_pb2.StartExecutionRequest(session=session_id, spec={"definition": "workflow"})
            await api.executions.StartExecution(request)
        await asyncio.sleep(0.05 * round_)
        await acme.delete_organization(api, cascade=True)


async def test_a_cascade_ends_the_step_that_is_being_run(tmp_path: Path, database_url: str) -> None:
    """It does not go on until it has something to write."""
    async with (
        served(tmp_path / "data", database_url, code_seconds=600) as server,
        connected(server.address, server.admin_key) as api,
    ):
        await acme.organization(api)
        session_id = await filled(api, flows.code("while True:\n    pass"))
        request = execution_pb2.StartExecutionRequest(session=session_id, spec={"definition": "workflow"})
        await api.executions.StartExecution(request)
        (step,) = [task for task in asyncio.all_tasks() if task.get_name() == "step script"]
        await acme.delete_blob(api, cascade=True)
        await asyncio.wait([step])
        assert step.cancelled()


async def test_a_cascade_leaves_nothing_behind_and_everything_else_as_it_was(api: Api, server: Served) -> None:
    url = server.settings.url
    await acme.user(api, "ann")
    await populated(api, "other")
    before = await everything(url)
    await populated(api, "acme")
    filled_tables = {name for name, rows in (await everything(url)).items() if len(rows) > len(before[name])}
    # A message is there until its execution has taken it in; one that stays is in `test_ownership.py`.
    passing = {"messages", "deletions"}
    # `populated` makes no scheduler and no model, and its logs are too short to be counted.
    unserved = {"schedules", "schedule_versions", "firings", "firing_logs", "log_sizes", "model_uploads", "operations"}
    assert filled_tables == before.keys() - {"users", "master_keys"} - passing - unserved
    await acme.delete_organization(api, "acme-renamed", cascade=True)
    await collected(url)
    assert await everything(url) == before


async def test_a_cascade_of_many_blobs_meets_the_journal_in_its_order(
    tmp_path: Path, fresh_postgres: Callable[[], Awaitable[str]]
) -> None:
    """The journal writes to sessions of several blobs in one transaction; neither waits for the other in a circle."""
    url = await fresh_postgres()
    async with served(tmp_path / "data", url) as server, connected(server.address, server.admin_key) as api:
        for _ in range(scaled(40, least=6)):
            await acme.organization(api)
            sessions = await asyncio.gather(*(scripted(api, f"acme/blob-{number}") for number in range(3)))
            starts = [ask(api, "StartExecution", session=id_, spec={"definition": "workflow"}) for id_ in sessions * 3]
            deletion = ask(api, "DeleteOrganization", organization="acme", cascade=True)
            outcomes = await asyncio.gather(*map(outcome, [*starts[:6], deletion, *starts[6:]]))
            assert outcomes[6] == "OK"
            assert set(outcomes) <= {"OK", "NOT_FOUND", "PERMISSION_DENIED"}
    assert await select(url, "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()") == [(0,)]


async def scripted(api: Api, reference: str) -> str:
    """Make a blob with a workflow of some commits; return the id of a session on it."""
    await acme.blob(api, reference)
    await api.put(flows.scripts(3), revision=f"{reference}@draft")
    return (await acme.session(api, f"{reference}@draft")).id
