"""Whoever invoked something hears of its end in the transaction of the end, can ask how it is, and can stop it."""

from __future__ import annotations

import random
import uuid
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import acme
import flows
import grpc
import joining
import pytest
from blobhub.v1 import execution_pb2
from blobhub_server.blobtypes.capabilities import Invocation, InvocationResult
from blobhub_server.db.engine import Transaction
from blobhub_server.errors import PermissionDenied
from blobhub_server.platform.blobs.collection import Collector
from blobhub_server.workflow.invocations import Invocations
from calling import ask
from databases import execute, select
from figures import Figure
from joining import Opened
from killing import work_until_killed
from scale import scaled
from served import Api, Served, ServerProcess, connected, served
from several_servers import ended, inbox, together
from waiting import until

NOTES, PIPELINE = "acme/notes", "acme/pipeline"
KILLS = scaled(20, least=2)
UNFINISHED = "SELECT count(*) FROM executions WHERE end_time IS NULL"
HEARD_OTHERWISE = """
SELECT note_runs.id, outcome, state FROM note_runs JOIN executions ON executions.id = note_runs.execution_id
    WHERE outcome <> CASE WHEN end_time IS NULL THEN '' ELSE state END
"""
"""The runs of notes whose outcome is not that of their executions."""


async def hub(api: Api, document: str) -> None:
    """Make a workflow and notes."""
    await acme.organization(api)
    await acme.blob(api, PIPELINE)
    await api.put(document, revision=f"{PIPELINE}@draft")
    await acme.blob(api, NOTES, "stranger.notes")
    await ask(api, "PutNote", revision=f"{NOTES}@draft", name="milk", text="remember the milk")


async def run(api: Api) -> str:
    asked = {"name": "milk", "workflow": f"{PIPELINE}@draft", "definition": "workflow"}
    return (await ask(api, "RunNote", revision=f"{NOTES}@draft", **asked)).run_id


async def outcome_of(api: Api, run_id: str) -> str:
    return (await ask(api, "GetNoteRun", note_run=run_id)).run.outcome


@pytest.mark.either_database
@pytest.mark.parametrize(
    ("document", "at_once", "outcome"),
    [
        (flows.steps(), "completed", "completed"),
        (flows.scripts(), "", "completed"),
        (flows.code("1 / 0"), "", "failed"),
    ],
)
async def test_what_became_of_an_execution_is_kept_with_its_end(
    api: Api, document: str, at_once: str, outcome: str, server: Served
) -> None:
    await hub(api, document)
    run_id = await run(api)
    if at_once:
        assert await outcome_of(api, run_id) == at_once, "it has ended in the transaction that started it"
    await until(lambda: outcome_of(api, run_id))
    assert await outcome_of(api, run_id) == outcome
    assert await select(server.settings.url, HEARD_OTHERWISE) == []


@pytest.mark.timeout(3600)
async def test_no_end_is_unheard_and_none_is_heard_early_whenever_the_server_is_killed(
    tmp_path: Path, database_url: str, figure: Figure
) -> None:
    dice, runs = random.Random(20261127), []

    async def work(api: Api) -> None:
        with suppress(grpc.aio.AioRpcError):
            runs.append(await run(api))

    server = ServerProcess(tmp_path / "data", database_url, lease_seconds=1)
    await server.start()
    try:
        async with connected(server.address, server.admin_key) as api:
            await hub(api, flows.MIXED)
        for _ in range(KILLS):
            await work_until_killed(server, database_url, work, 20, runs, dice)
            assert await select(database_url, HEARD_OTHERWISE) == []
        await until(lambda: all_ended(database_url))
    finally:
        server.kill()
    assert await select(database_url, HEARD_OTHERWISE) == []
    assert await select(database_url, "SELECT DISTINCT outcome FROM note_runs") == [("completed",)]
    figure(f"{len(runs)} runs of notes, {KILLS} kills")


async def all_ended(url: str) -> bool:
    return await select(url, UNFINISHED) == [(0,)]


class Inside:
    """A server seen from inside: its invocations, a client, and what an invocation is asked with."""

    def __init__(self, opened: Opened, api: Api, actor_id: str) -> None:
        self.opened = opened
        self.host = opened.host
        self.invocations = Invocations(opened.host, opened.definitions, opened.runtime, inbox(opened))
        self.api = api
        self.actor_id = actor_id
        self.heard: list[InvocationResult] = []
        self.invocations.listen(self.hear)

    async def hear(self, tx: Transaction, ended: list[InvocationResult]) -> None:
        tx.after_commit(lambda: self.heard.extend(ended))

    async def invoke(self, cause: str) -> InvocationResult:
        asked = Invocation(
            cause=cause, actor_id=self.actor_id, revision=f"{PIPELINE}@draft", definition="workflow", session="fixed"
        )
        return await self.host.db.transact(lambda tx: self.invocations.invoke(tx, asked))

    async def find(self, *causes: str) -> dict[str, InvocationResult]:
        async with self.host.db.read() as tx:
            return dict(await self.invocations.find(tx, causes))

    async def stop(self, cause: str, actor_id: str = "") -> InvocationResult | None:
        return await self.host.db.transact(lambda tx: self.invocations.stop(tx, cause, actor_id or self.actor_id))


@pytest.fixture
async def inside(tmp_path: Path, database_url: str) -> AsyncIterator[Inside]:
    with joining.opening() as found:
        async with served(tmp_path / "data", database_url) as server, connected(server.address, server.admin_key) as api:
            await hub(api, flows.delay(3600))
            actor_id = (await acme.key(api, PIPELINE, role="ROLE_WRITE")).api_key.id
            yield Inside(found[0], api, actor_id)


async def test_an_execution_is_stopped_on_behalf_of_who_may_and_its_end_is_heard_once(inside: Inside) -> None:
    cause, reader = str(uuid.uuid4()), (await acme.key(inside.api, PIPELINE)).api_key.id
    assert await inside.find(cause) == {}
    assert await inside.stop(cause) is None
    made = await inside.invoke(cause)
    with pytest.raises(PermissionDenied):
        await inside.stop(cause, reader)
    assert (await inside.find(cause))[cause].state in ("pending", "running", "waiting")
    for _ in range(2):
        stopping = await inside.stop(cause)
        assert stopping is not None
        assert (stopping.execution_id, stopping.cause) == (made.execution_id, cause)
        assert stopping.state in ("stopping", "stopped")
    await until(lambda: inside.heard)
    assert [(item.cause, item.state) for item in inside.heard] == [(cause, "stopped")]
    assert await inside.find(cause) == {cause: inside.heard[0]}
    assert await inside.stop(cause) == inside.heard[0], "what has ended stays as it is"
    assert await inside.invoke(cause) == inside.heard[0], "a cause starts one execution"


async def test_the_ends_of_what_a_call_has_started_are_not_told(inside: Inside) -> None:
    await inside.api.put(flows.scripts(1), alias="other")
    session = await acme.session(inside.api, f"{PIPELINE}@draft")
    request = execution_pb2.StartExecutionRequest(session=session.id, spec={"definition": "other"})
    await ended(inside.api, (await inside.api.executions.StartExecution(request)).execution.id)
    assert inside.heard == []


async def test_an_end_that_a_listener_refuses_is_made_when_it_does_not(inside: Inside) -> None:
    refusals = 3

    async def refuse(_tx: Transaction, _ended: object) -> None:
        nonlocal refusals
        refusals -= 1
        if refusals >= 0:
            raise ZeroDivisionError

    inside.invocations.listen(refuse)
    cause = str(uuid.uuid4())
    await inside.invoke(cause)
    await inside.stop(cause)
    await until(lambda: inside.heard)
    assert refusals < 0
    assert [item.state for item in inside.heard] == ["stopped"]


async def test_an_execution_whose_session_was_deleted_is_not_found_by_its_cause(
    inside: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def rest(*_: object) -> None:
        """Collect nothing."""

    monkeypatch.setattr(Collector, "_take_step", rest)
    cause = str(uuid.uuid4())
    await inside.invoke(cause)
    await acme.delete_blob(inside.api, PIPELINE, cascade=True)
    assert await inside.find(cause) == {}
    assert await inside.stop(cause) is None


async def test_the_server_that_commits_the_end_hears_of_it(tmp_path: Path, database_url: str) -> None:
    """Where there are several, the execution is taken over by another one than that which has started it."""
    async with together(tmp_path, database_url, lease_seconds=1) as servers:
        (first, api), (last, _) = servers[0], servers[-1]
        await hub(api, flows.delay(0.5))
        run_id = await run(api)
        if first is not last:
            moved = "UPDATE executions SET fence = fence + 1, owner = "
            await execute(database_url, f"{moved} '{last.host.server_id}'")
        await until(lambda: outcome_of(api, run_id))
        assert await outcome_of(api, run_id) == "completed"
