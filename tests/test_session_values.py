"""Values of sessions that many executions use at once: none undoes what another has done."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import counters
import flows
import pytest
from blobhub.v1 import execution_pb2 as pb
from blobhub_server.workflow.components.contract import ComponentContext, Inputs, Outcome
from blobhub_server.workflow.components.logic import Code
from calling import outcome
from counters import COUNTERS
from databases import FreshPostgres
from ground import AT_ONCE, check_all, start_many, uncertain_commits
from runs import run
from scale import scaled
from served import Api
from several_servers import together
from waiting import within_deadline

COMPLETED = pb.EXECUTION_STATE_COMPLETED
MANY = scaled(200, least=20)
WAYS = pytest.mark.parametrize("document", COUNTERS.values(), ids=COUNTERS)


@WAYS
async def test_a_counter_that_many_executions_increment_at_once_counts_them_all(api: Api, document: str) -> None:
    session_id = await api.session(document)
    runs = await counters.run_many(api, session_id, MANY)
    assert {run.state for run in runs} == {COMPLETED}
    assert await counters.count_in(api, session_id) == MANY


@pytest.mark.parametrize("way", ["expression", "expression after a script", "script"])
async def test_each_of_those_that_count_at_once_gets_a_number_of_its_own(api: Api, way: str) -> None:
    session_id = await api.session(COUNTERS[way])
    runs = await counters.run_many(api, session_id, MANY)
    assert sorted(run.result.number_value for run in runs) == list(range(1, MANY + 1))


@WAYS
async def test_two_servers_count_together(tmp_path: Path, fresh_postgres: FreshPostgres, document: str) -> None:
    async with together(tmp_path, await fresh_postgres()) as ((_, one), (_, other)):
        session_id = await one.session(document)
        await asyncio.gather(*(counters.run_many(api, session_id, MANY // 2) for api in (one, other)))
        assert await counters.count_in(one, session_id) == MANY


async def test_executions_that_count_in_different_ways_count_together(api: Api) -> None:
    session_id = await api.session(flows.steps(1))
    for number, document in enumerate(COUNTERS.values()):
        await api.put(document, alias=f"way-{number}")
    each = max(5, MANY // len(COUNTERS))
    await asyncio.gather(*(counters.run_many(api, session_id, each, f"way-{n}") for n in range(len(COUNTERS))))
    assert await counters.count_in(api, session_id) == each * len(COUNTERS)


@pytest.mark.parametrize("way", ["expression", "script", "operation of a script"])
async def test_what_clients_write_meanwhile_is_not_lost_either(api: Api, way: str) -> None:
    """Clients count with etags beside the executions."""
    session_id = await api.session(COUNTERS[way])
    await counters.put(api, session_id, 0)
    by_clients = by_executions = 0

    async def write() -> None:
        nonlocal by_clients
        while not running.done():
            value, etag = await counters.value_of(api, session_id)
            put = await outcome(counters.put(api, session_id, value + 1, etag=etag))
            by_clients += put == "OK"
            await asyncio.sleep(random.random() * 0.05)

    async def execute() -> None:
        nonlocal by_executions
        while by_clients < 5 or by_executions < MANY:
            await counters.run_many(api, session_id, 10)
            by_executions += 10

    running = asyncio.ensure_future(execute())
    await within_deadline(asyncio.gather(running, *(write() for _ in range(3))))
    assert await counters.count_in(api, session_id) == by_executions + by_clients


async def test_executions_that_have_much_to_evaluate_again_all_finish(api: Api) -> None:
    """What they evaluate again is more than one transaction may."""
    document = counters.after_steps(60)
    session_id = await api.session(document)
    many = max(40, MANY // 4)
    runs = await counters.run_many(api, session_id, many)
    assert {run.state for run in runs} == {COMPLETED}
    assert await counters.count_in(api, session_id) == many


async def test_an_object_that_is_deleted_meanwhile_is_counted_from_nothing(api: Api) -> None:
    """The counter's own value is where it begins."""
    session_id = await api.session(counters.expression(value=10))
    assert (await run(api, session_id)).result.number_value == 11
    await counters.delete(api, session_id)
    assert (await run(api, session_id)).result.number_value == 11


@pytest.mark.parametrize("way", ["expression after a script", "script", "operation of a script"])
async def test_each_execution_counts_once_whatever_becomes_of_its_commits(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    async with together(tmp_path, database_url, count=1, lease_seconds=1) as ((_, api),):
        session_id = await api.session(COUNTERS[way])
        with uncertain_commits(monkeypatch, 20261127):
            ids = await start_many(api, session_id, AT_ONCE * scaled(10, least=2))
            await check_all(database_url, session_id, ids)
        assert await counters.count_in(api, session_id) == len(ids)


async def test_a_step_with_effects_is_not_run_again_for_what_others_have_written_meanwhile(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A script takes the place of a component that changes something outside; it has read the value that it adds to."""
    monkeypatch.setattr(Code, "repeatable", False)
    runs = []

    async def run(self: Code, inputs: Inputs, context: ComponentContext) -> Outcome:
        runs.append(context.execution_id)
        await asyncio.sleep(0.05)
        return Outcome(route="success", outputs={"result": 1})

    monkeypatch.setattr(Code, "run", run)
    session_id = await api.session(counters.script(operation="add"))
    ended = await counters.run_many(api, session_id, MANY)
    assert sorted(runs) == sorted(execution.id for execution in ended)
    assert await counters.count_in(api, session_id) == MANY
