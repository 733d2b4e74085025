"""Sessions: their aliases, and lists of them and of their executions."""

from __future__ import annotations

import uuid
from typing import Any

import acme
import flows
import grpc
from blobhub_server.blobtypes.conformance import expect_refusal
from calling import ask
from served import Api


async def test_an_alias_is_one_open_sessions_of_a_revision(api: Api) -> None:
    await api.session(flows.steps(1))
    await ask(api, "CommitRevision", revision="acme/pipeline@draft")
    await ask(api, "CreateRevision", blob="acme/pipeline", base_revision="latest")
    of_commit, of_draft = "acme/pipeline@latest", "acme/pipeline@draft"
    made = [(await ask(api, "CreateSession", revision=each, alias="daily")).session for each in (of_commit, of_draft)]
    assert made[0].revision_id != made[1].revision_id
    for revision in (of_commit, of_draft):
        again = ask(api, "CreateSession", revision=revision, alias="daily")
        await expect_refusal(again, grpc.StatusCode.ALREADY_EXISTS, "ALREADY_EXISTS")
    await ask(api, "CloseSession", session=made[0].id)
    assert (await ask(api, "CreateSession", revision=of_commit, alias="daily")).session.alias == "daily"
    await expect_refusal(
        ask(api, "CreateSession", revision=of_draft, alias="daily"), grpc.StatusCode.ALREADY_EXISTS, "ALREADY_EXISTS"
    )


async def test_sessions_are_listed_by_revision(api: Api) -> None:
    first = (await api.session(flows.steps(1)), await acme.commit(api))[0]
    await acme.branch(api, "latest")
    second = (await ask(api, "CreateSession", revision="acme/pipeline@draft")).session.id
    for revision, expected in (("acme/pipeline@latest", first), ("acme/pipeline@draft", second)):
        for reference in (revision, (await acme.get_revision(api, revision)).id):
            found = (await ask(api, "ListSessions", blob="acme/pipeline", revision=reference)).sessions
            assert [item.id for item in found] == [expected]
    await acme.blob(api, "acme/other")
    for reference in ("acme/other@draft", "acme/pipeline@99", str(uuid.uuid4())):
        listing = ask(api, "ListSessions", blob="acme/pipeline", revision=reference)
        await expect_refusal(listing, grpc.StatusCode.NOT_FOUND, "NOT_FOUND")


async def test_executions_are_a_blobs_the_newest_first(api: Api) -> None:
    sessions = [await api.session(flows.steps(1)), (await ask(api, "CreateSession", revision="acme/pipeline")).session.id]
    await ask(api, "PutDefinition", revision="acme/pipeline@draft", alias="other", document=flows.steps(2))
    made = [
        (await ask(api, "RunExecution", session=session, spec={"definition": definition})).execution
        for session in sessions
        for definition in ("workflow", "other")
    ]

    async def listed(**filters: Any) -> list[int]:
        found = await ask(api, "ListExecutions", blob="acme/pipeline", **filters)
        return [[item.id for item in made].index(execution.id) for execution in found.executions]

    assert await listed() == [3, 2, 1, 0]
    assert await listed(order_by="create_time") == [0, 1, 2, 3]
    assert await listed(session=sessions[0].upper()) == [1, 0]
    assert await listed(definition_alias="other") == [3, 1]
    assert await listed(definition_alias="other", session=sessions[1], state="EXECUTION_STATE_COMPLETED") == [3]
    assert await listed(state="EXECUTION_STATE_FAILED") == []
    assert await listed(created_after=made[1].create_time) == [3, 2]
    assert await listed(created_after=made[1].create_time, created_before=made[3].create_time) == [2]


async def test_a_session_of_another_blob_is_none_of_the_blobs(api: Api) -> None:
    session = await api.session(flows.steps(1))
    await acme.blob(api, "acme/other")
    for blob, wanted in (("acme/other", session), ("acme/pipeline", str(uuid.uuid4()))):
        listing = ask(api, "ListExecutions", blob=blob, session=wanted)
        error = await expect_refusal(listing, grpc.StatusCode.NOT_FOUND, "NOT_FOUND")
        assert error.details() == f"no such session: {wanted}; the blob has no such session"
