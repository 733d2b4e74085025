"""Executions that end their server: they are failed in the end, and nobody else is."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Mapping
from contextlib import AsyncExitStack, suppress
from functools import partial
from pathlib import Path

import flows
import grpc
import pytest
from blobhub.v1 import execution_pb2 as pb
from blobhub_server.workflow.interpreter import (
    Completion,
    Continue,
    ExecutionState,
    Interrupted,
    Started,
)
from blobhub_server.workflow.rules.execution import DEFAULT_STEP_LIMIT
from blobhub_server.workflow.rules.message import Message, MessageKind
from blobhub_server.workflow.runtime.decision import Decision, Progress, happen
from blobhub_server.workflow.runtime.embedded.caution import MAX_RECOVERIES, decide_with_caution
from calling import ask
from databases import FreshPostgres, select
from faulty import command, poisoned
from interpreting import EXECUTION, compiled
from served import Api, ServerProcess, connected
from waiting import until

INNOCENTS = 8
KILLS = 5
SLOW = "n = 0\nfor i in range(300000):\n    n += i\nset_data_output('result', n)\nset_result('success')"


async def started(api: Api, session_id: str, definition: str) -> str:
    """Start an execution of a definition; return its id."""
    return (await ask(api, "StartExecution", session=session_id, spec={"definition": definition})).execution.id


async def all_ended(url: str) -> Mapping[str, tuple[str, str]] | None:
    """The state and the failure of every execution, by id, once all have ended."""
    found = await select(url, "SELECT id, state, failure, end_time FROM executions")
    return (
        None if any(end is None for *_, end in found) else {id_: (state, failure or "") for id_, state, failure, _ in found}
    )


def check(ended: Mapping[str, tuple[str, str]], poison: str) -> None:
    """The poison has failed as one, and all others have completed."""
    assert ended[poison][0] == "failed"
    assert '"POISONED"' in ended[poison][1]
    assert {state for id_, (state, _) in ended.items() if id_ != poison} <= {"completed"}


@pytest.mark.parametrize(("how", "after"), [("exit", "delay"), ("hang", "script")])
async def test_the_third_recovery_of_what_ends_its_server_fails_it_and_all_others_complete(
    tmp_path: Path, database_url: str, how: str, after: str
) -> None:
    note = tmp_path / "note"
    server = ServerProcess(tmp_path / "data", database_url, command=command(tmp_path / "freeze"), lease_seconds=1)
    await server.start()
    async with connected(server.address, server.admin_key) as api:
        session_id = await api.session(poisoned(note, how, after))
        await api.put(flows.MIXED, alias="innocent")
        ids = [await started(api, session_id, "innocent") for _ in range(INNOCENTS)]
        with suppress(grpc.aio.AioRpcError):  # It may be gone before it has answered.
            await started(api, session_id, "workflow")
    for evaluated in range(1, MAX_RECOVERIES + 1):
        await until(lambda evaluated=evaluated: note.exists() and len(note.read_text()) == evaluated)
        server.kill()
        await server.start()
    ended = await until(partial(all_ended, database_url))
    (poison,) = ended.keys() - set(ids)
    check(ended, poison)
    assert len(note.read_text()) == MAX_RECOVERIES
    async with connected(server.address, server.admin_key) as api:
        execution = (await ask(api, "GetExecution", execution=poison)).execution
        assert execution.state == pb.EXECUTION_STATE_FAILED
        assert execution.failure.reason == "POISONED"
    assert server.stop() == 0


async def test_of_two_servers_neither_is_ended_by_an_execution_without_end(
    tmp_path: Path, fresh_postgres: FreshPostgres
) -> None:
    url, note = await fresh_postgres(), tmp_path / "note"
    servers = [
        ServerProcess(tmp_path / "data", url, command=command(tmp_path / "freeze"), lease_seconds=1) for _ in range(2)
    ]
    for server in servers:
        await server.start()
    async with connected(servers[0].address, servers[0].admin_key) as api:
        session_id = await api.session(poisoned(note, "exit", "delay"))
        await api.put(flows.MIXED, alias="innocent")
        ids = [await started(api, session_id, "innocent") for _ in range(INNOCENTS)]
        poison = await started(api, session_id, "workflow")

    async def tended() -> Mapping[str, tuple[str, str]] | None:
        """Start whatever server has ended."""
        for server in servers:
            if not server.is_alive():
                server.kill()
                await server.start()
        return await all_ended(url)

    ended = await until(tended)
    assert ended.keys() == {poison, *ids}
    check(ended, poison)
    assert len(note.read_text()) == MAX_RECOVERIES
    async with AsyncExitStack() as stack:
        for server in servers:
            api = await stack.enter_async_context(connected(server.address, servers[0].admin_key))
            assert (await ask(api, "GetExecution", execution=poison)).execution.failure.reason == "POISONED"


async def test_executions_complete_whose_server_is_killed_again_and_again(tmp_path: Path, database_url: str) -> None:
    """Each was recovered before the next kill, and none was just being counted: long steps, waits, and much to evaluate."""
    dice = random.Random(20261127)
    server = ServerProcess(tmp_path / "data", database_url, lease_seconds=1)
    await server.start()
    documents = {
        "workflow": flows.code(SLOW),
        "mixed": flows.MIXED,
        "delay": flows.delay(1),
        "busy": flows.steps(90),
    }
    async with connected(server.address, server.admin_key) as api:
        session_id = await api.session(documents["workflow"])
        for alias, document in documents.items():
            await api.put(document, alias=alias)
        ids = [await started(api, session_id, alias) for alias in documents for _ in range(3)]
        waiting = await started(api, session_id, "delay")
    for kill in range(KILLS):

        async def recovered(kill: int = kill) -> bool:
            left = "SELECT min(fence), max(recoveries) FROM executions WHERE end_time IS NULL"
            ((fence, counted),) = await select(database_url, left)
            return fence is None or (fence > kill and not counted)

        await until(recovered)
        await asyncio.sleep(dice.uniform(0, 0.1))
        server.kill()
        await server.start()
    ended = await until(partial(all_ended, database_url))
    assert ended.keys() == {*ids, waiting}
    assert Counter(state for state, _ in ended.values()) == {"completed": len(ids) + 1}, ended


class Trial:
    """An execution that a server recovers, as its runner decides; what is decided is kept, or lost with the server."""

    def __init__(self, document: str) -> None:
        self.graph = compiled(document)
        self.progress = Progress(EXECUTION, ExecutionState(step_limit=DEFAULT_STEP_LIMIT))
        self.keep(happen(self.graph, self.progress, [Started({})], now=0.0, session={}))

    def keep(self, decision: Decision) -> None:
        self.progress = decision.progress

    def recovered(self, *happenings: object, messages: tuple[Message, ...] = ()) -> Decision:
        decide = partial(happen, self.graph, self.progress, now=1.0, session={}, messages=messages, budget=0)
        return decide_with_caution(decide, [Continue(), *happenings], self.progress.execution.recoveries)

    def evaluated(self) -> Decision:
        return happen(self.graph, self.progress, [Continue()], now=1.0, session={})


STOP = Message(execution_id="e", number=1, kind=MessageKind.STOP, body={})


def test_what_waits_or_has_a_step_under_way_is_not_counted_however_often_it_is_recovered() -> None:
    for document, happenings in ((flows.delay(60), ()), (flows.code(SLOW), (Interrupted(2),))):
        trial = Trial(document)
        for _ in range(10 * MAX_RECOVERIES):
            trial.keep(trial.recovered(*happenings))
            assert trial.progress.execution.recoveries == 0
            assert trial.progress.execution.state in ("running", "waiting")


def test_what_has_something_to_evaluate_is_counted_first_and_set_back_by_what_comes_of_it() -> None:
    trial = Trial(flows.delay(60))
    for _ in range(10):
        decision = trial.recovered(Completion(step=2, attempt=1))
        assert [record.type for record in decision.records] == ["processor.exited"]
        assert decision.progress.execution.recoveries == 1
    trial.keep(decision)
    trial.keep(trial.recovered())
    assert trial.progress.execution.recoveries == 2
    trial.keep(trial.evaluated())
    assert (trial.progress.execution.state, trial.progress.execution.recoveries) == ("completed", 0)


def test_the_last_recovery_that_there_may_be_fails_an_execution_unless_it_was_stopped() -> None:
    trial = Trial(flows.delay(60))
    trial.keep(trial.recovered(Completion(step=2, attempt=1)))
    trial.keep(trial.recovered())
    stopped, failed = trial.recovered(messages=(STOP,)), trial.recovered()
    assert stopped.progress.execution.state == "stopping"
    assert failed.progress.execution.failure["reason"] == "POISONED"
