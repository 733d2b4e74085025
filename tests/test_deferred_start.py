"""Executions that are started many at once run when all are started, or after some seconds, and each once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import acme
import flows
import joining
import pytest
from blobhub.v1.execution_pb2 import WatchExecutionRequest
from blobhub_server.workflow.rules.execution import Execution
from blobhub_server.workflow.runtime.embedded import launches
from calling import ask
from databases import select
from joining import Opened
from served import Api, connected, served
from waiting import until

STATES = "SELECT state, count(*) FROM executions GROUP BY state"
COUNT = 20


@pytest.fixture
async def opened(tmp_path: Path, database_url: str) -> AsyncIterator[tuple[Opened, Api]]:
    """A server, what its workflows were opened with, and a client of it."""
    with joining.opening() as found:
        async with served(tmp_path / "data", database_url) as server, connected(server.address, server.admin_key) as api:
            yield found[0], api


async def start(here: Opened, session_id: str, numbers: range) -> list[Execution]:
    """Start one execution for each number, all in one transaction."""
    prepared = [await here.runtime.prepare(await here.start(session_id, number)) for number in numbers]
    started = await here.host.db.transact(lambda tx: here.runtime.join_all(tx, prepared))
    assert all(isinstance(each, Execution) for each in started)
    return [*started]


async def completed(url: str) -> int:
    return dict(await select(url, STATES)).get("completed", 0)


async def are_completed(url: str, count: int) -> bool:
    return await completed(url) == count


async def test_what_is_started_meanwhile_runs_when_all_is_started(opened: tuple[Opened, Api], database_url: str) -> None:
    here, api = opened
    session_id = await api.session(flows.steps(5))
    with here.runtime.deferred():
        for first in range(0, 3 * COUNT, COUNT):
            await start(here, session_id, range(first, first + COUNT))
        alone = await start(here, session_id, range(1000, 1001))
        await asyncio.sleep(0.2)
        assert await completed(database_url) == len(alone), "what is started alone is not deferred"
    await until(lambda: are_completed(database_url, 3 * COUNT + 1))
    types = await select(database_url, "SELECT type, count(*) FROM events GROUP BY type")
    assert dict(types)["flow.entered"] == dict(types)["flow.exited"] == 3 * COUNT + 1


async def test_each_of_those_that_are_started_at_once_has_its_own_inputs_and_is_told_of_as_itself(
    opened: tuple[Opened, Api], database_url: str
) -> None:
    """What those begin with that are given the same is decided and encoded once."""
    here, api = opened
    session_ids = [await api.session(flows.rounds(1)), (await acme.session(api, "acme/pipeline@draft")).id]
    given = [5, 5, 7, 5, 7, 5]
    starts = [await here.start(session_ids[number % 2], number, input_data={"n": n}) for number, n in enumerate(given)]
    prepared = [await here.runtime.prepare(start) for start in starts]
    with here.runtime.deferred():
        started = await here.host.db.transact(lambda tx: here.runtime.join_all(tx, prepared))
    await until(lambda: are_completed(database_url, len(given)))
    for number, execution in enumerate(started):
        ended = (await ask(api, "GetExecution", execution=execution.id)).execution
        assert ended.result.number_value == given[number] + 1
        request = WatchExecutionRequest(execution=execution.id, replay_only=True)
        events = [event async for batch in api.executions.WatchExecution(request) for event in batch.events]
        assert {event.execution_id for event in events} == {execution.id}
        assert {event.session_id for event in events} == {session_ids[number % 2]}
        assert [event.execution_sequence for event in events] == [*range(1, len(events) + 1)]
        assert min(event.create_time.ToNanoseconds() for event in events) >= ended.create_time.ToNanoseconds()


async def test_what_is_started_for_long_begins_to_run_meanwhile(
    opened: tuple[Opened, Api], database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, api = opened
    monkeypatch.setattr(launches, "MAX_DEFERRED_SECONDS", 0.1)
    session_id = await api.session(flows.steps(5))
    with here.runtime.deferred():
        for first in (0, COUNT):
            await start(here, session_id, range(first, first + COUNT))
            await until(lambda first=first: are_completed(database_url, first + COUNT))


async def test_one_that_is_stopped_before_it_runs_is_stopped(opened: tuple[Opened, Api], database_url: str) -> None:
    here, api = opened
    session_id = await api.session(flows.delay(3600))
    with here.runtime.deferred():
        started = await start(here, session_id, range(COUNT))
        for execution in started:
            await ask(api, "StopExecution", execution=execution.id)
    await until(lambda: are_stopped(database_url))


async def are_stopped(url: str) -> bool:
    return dict(await select(url, STATES)) == {"stopped": COUNT}


async def test_one_that_was_left_by_its_server_before_it_ran_is_run_by_the_next(tmp_path: Path, database_url: str) -> None:
    with joining.opening() as found:
        async with served(tmp_path / "data", database_url) as server, connected(server.address, server.admin_key) as api:
            session_id = await api.session(flows.steps(5))
            with found[0].runtime.deferred():
                await start(found[0], session_id, range(COUNT))
                found[0].runtime._runners.leave()
            assert await completed(database_url) == 0
        async with served(tmp_path / "data", database_url):
            await until(lambda: are_completed(database_url, COUNT))
