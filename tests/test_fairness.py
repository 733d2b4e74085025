"""Whoever brings much does not crowd others out: units, turns and executions of several organizations go round."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import acme
import flows
import pytest
from blobhub.v1 import execution_pb2
from blobhub_server.background import Rounds
from blobhub_server.db.group import MAX_BATCH, MAX_WEIGHT, GroupCommitter
from blobhub_server.workflow.interpreter import Continue, ExecutionState, Started
from blobhub_server.workflow.interpreter.size import MAX_LOG_BYTES
from blobhub_server.workflow.runtime.decision import Progress, happen
from blobhub_server.workflow.runtime.embedded import turn_taking
from blobhub_server.workflow.runtime.embedded.turn_taking import TurnTaking
from calling import ask
from figures import Figure
from hypothesis import given
from hypothesis import strategies as st
from interpreting import EXECUTION, compiled
from scale import scaled
from served import Api, Served, connected
from waiting import until, within_deadline

Item = tuple[str, int]
LOUD, QUIET = "loud", "quiet"


@given(st.lists(st.sampled_from("abc")))
def test_a_round_has_one_item_of_each_party_and_those_of_a_party_keep_their_order(parties: list[str]) -> None:
    rounds: Rounds[Item] = Rounds(lambda item: item[0])
    for number, party in enumerate(parties):
        rounds.append((party, number))
    given_out = [rounds.popleft() for _ in parties]
    assert not rounds
    assert sorted(given_out) == sorted((party, number) for number, party in enumerate(parties))
    for party in {*parties}:
        own = [number for name, number in given_out if name == party]
        assert own == sorted(own)
    seen = dict.fromkeys(parties, 0)
    for party, _ in given_out:
        assert all(seen[party] <= seen[other] or seen[other] == parties.count(other) for other in seen)
        seen[party] += 1


class NoDatabase:
    """Runs work without a transaction."""

    async def transact(self, work: Any) -> Any:
        return await work(None)


async def batches_of(parties: Sequence[Callable[[Item], str]]) -> list[list[Item]]:
    """The batches in which the units of the loud and one of the quiet are written, who comes when they have begun.

    The quiet one is in the next batch.
    """
    batches: list[list[Item]] = []

    async def apply(_: Any, units: Sequence[Item]) -> Sequence[None]:
        batches.append([*units])
        await asyncio.sleep(0)
        return [None] * len(units)

    committer: GroupCommitter[Item, None] = GroupCommitter(NoDatabase(), apply, parties=parties)  # type: ignore[arg-type]
    loud = [asyncio.create_task(committer.submit((LOUD, number))) for number in range(4 * MAX_BATCH)]
    await asyncio.sleep(0)
    done = len(batches)
    await committer.submit((QUIET, 0))
    (written_in,) = [number for number, batch in enumerate(batches) if (QUIET, 0) in batch]
    assert written_in <= done + 1
    await asyncio.gather(*loud)
    return batches


async def test_a_unit_is_in_the_next_batch_however_many_another_party_has_queued() -> None:
    batches = await batches_of([lambda unit: unit[0]])
    assert [item for batch in batches for item in batch if item[0] == LOUD] == [(LOUD, n) for n in range(4 * MAX_BATCH)]


async def test_a_unit_is_in_the_next_batch_however_many_another_caller_of_its_organization_has_queued() -> None:
    await batches_of([lambda _: "acme", lambda unit: unit[0]])


async def test_a_batch_ends_with_the_unit_that_makes_it_heavy() -> None:
    weights: list[int] = []

    async def apply(_: Any, units: Sequence[int]) -> Sequence[None]:
        weights.append(sum(units[:-1]))
        return [None] * len(units)

    committer: GroupCommitter[int, None] = GroupCommitter(NoDatabase(), apply, weight=lambda unit: unit)  # type: ignore[arg-type]
    await asyncio.gather(*(committer.submit(MAX_WEIGHT // 3) for _ in range(20)))
    assert len(weights) >= 5
    assert all(weight < MAX_WEIGHT for weight in weights)


async def test_of_fifty_that_decide_on_and_on_another_organization_has_every_second_turn(monkeypatch) -> None:
    monkeypatch.setattr(turn_taking, "TURN_SECONDS", 0.0)
    turns, order = TurnTaking(), []

    async def decide_on_and_on() -> None:
        while True:
            await turns.take((LOUD, ""), lambda: order.append(LOUD))

    looping = [asyncio.create_task(decide_on_and_on()) for _ in range(50)]
    await until(lambda: len(order) >= len(looping))
    del order[:]
    for _ in range(20):
        await turns.take((QUIET, ""), lambda: order.append(QUIET))
    assert order.count(LOUD) <= 2 * 20
    for task in looping:
        task.cancel()
    await asyncio.wait(looping)
    await within_deadline(turns.take((QUIET, ""), lambda: None))


async def test_of_fifty_that_decide_on_and_on_another_caller_of_an_organization_has_every_second_turn(
    monkeypatch,
) -> None:
    monkeypatch.setattr(turn_taking, "TURN_SECONDS", 0.0)
    turns, order = TurnTaking(), []

    async def decide_on_and_on() -> None:
        while True:
            await turns.take(("acme", LOUD), lambda: order.append(LOUD))

    looping = [asyncio.create_task(decide_on_and_on()) for _ in range(50)]
    await until(lambda: len(order) >= len(looping))
    del order[:]
    for _ in range(20):
        await turns.take(("acme", QUIET), lambda: order.append(QUIET))
    assert order.count(LOUD) <= 2 * 20
    for task in looping:
        task.cancel()
    await asyncio.wait(looping)


async def test_a_turn_that_comes_to_who_was_cancelled_goes_to_the_next(monkeypatch) -> None:
    monkeypatch.setattr(turn_taking, "TURN_SECONDS", 0.0)
    turns = TurnTaking()
    for ticks in range(5):
        await turns.take((LOUD, ""), lambda: None)
        first = asyncio.create_task(turns.take((LOUD, ""), lambda: None))
        second = asyncio.create_task(turns.take((LOUD, ""), lambda: "second"))
        for _ in range(ticks):
            await asyncio.sleep(0)
        first.cancel()
        assert await within_deadline(second) == "second"


async def test_what_an_execution_logs_is_bounded_by_its_bytes() -> None:
    graph = compiled(flows.rounds(0, expression="n[1:] + n[0]", begin="x" * 50_000, until="False"))
    happening, logged, turns = Started({}), 0, 0
    progress = Progress(EXECUTION, ExecutionState(step_limit=1_000_000))
    while not progress.state.ended:
        decision = happen(graph, progress, [happening], now=0.0, session={})
        progress, happening, turns = decision.progress, Continue(), turns + 1
        logged += sum(len(str(record.to_json())) for record in decision.records)
        assert sum(len(str(record.to_json())) for record in decision.records) < 2 << 20, "a turn writes little"
    assert progress.execution.failure["reason"] == "LOG_LIMIT"
    assert MAX_LOG_BYTES * 0.9 < logged < MAX_LOG_BYTES * 1.1
    assert turns > 20


@pytest.mark.parametrize("other", ["organization", "caller"])
async def test_an_honest_execution_completes_while_fifty_of_another_loop(
    server: Served, api: Api, figure: Figure, other: str
) -> None:
    """It prints how long the honest ones took, beside those of another organization, or of another of its callers."""
    loud = await api.session(flows.rounds(0, until="False"), organization=LOUD)
    if other == "organization":
        quiet = await api.session(flows.steps(5), organization=QUIET)
        key = server.admin_key
    else:
        await acme.blob(api, f"{LOUD}/other")
        await api.put(flows.steps(5), revision=f"{LOUD}/other@draft")
        quiet = (await acme.session(api, f"{LOUD}/other@draft")).id
        key = (await acme.key(api, LOUD, acme.WRITE)).key
    start = {"session": loud, "spec": {"definition": "workflow", "step_limit": 1_000_000}}
    looping = [
        answer.execution.id for answer in await asyncio.gather(*(ask(api, "StartExecution", **start) for _ in range(50)))
    ]
    loop = asyncio.get_running_loop()
    took = []
    async with connected(server.address, key) as honest:
        for _ in range(scaled(200, least=10)):
            begun = loop.time()
            ended = await within_deadline(ask(honest, "RunExecution", session=quiet, spec={"definition": "workflow"}))
            assert ended.execution.state == execution_pb2.EXECUTION_STATE_COMPLETED
            took.append((loop.time() - begun) * 1000)
    states = [(await ask(api, "GetExecution", execution=id_)).execution.state for id_ in looping]
    assert states.count(execution_pb2.EXECUTION_STATE_RUNNING) == len(states)
    took.sort()
    p50, p99 = took[len(took) // 2], took[-1 - len(took) // 100]
    figure(f"an execution of five steps beside fifty of another {other} that loop: p50 {p50:.1f} ms, p99 {p99:.1f} ms")
    await acme.delete_organization(api, LOUD, cascade=True)
