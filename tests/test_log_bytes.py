"""The logs of an organization together: what they may have, how it is counted, and how it is given back."""

from __future__ import annotations

import asyncio
import random
from functools import partial
from pathlib import Path
from typing import Any

import acme
import flows
import grpc
import pytest
from blobhub.v1 import execution_pb2, limit_pb2
from blobhub_server.blobtypes.conformance import unpack
from blobhub_server.workflow.rules.session import COUNT_BYTES, SESSION_EVENT_BYTES
from calling import ask
from databases import collected, execute, select
from google.rpc import error_details_pb2
from killing import work_until_killed
from runs import run
from scale import scaled
from served import Api, Served, ServerProcess, connected
from several_servers import together
from waiting import until

NAME = "workflow.log_bytes"
MOST = 400_000
TEXT = "x" * 30_000
KILLS = scaled(20, least=3)

STORED = f"""SELECT coalesce(sum(CASE WHEN execution_id IS NULL THEN {SESSION_EVENT_BYTES}
    ELSE length(event) + coalesce(length(record), 0) END), 0) FROM events"""
"""What is stored of all logs, as it counts. The records of these executions are ASCII."""


def loud(rounds: int) -> str:
    """Logs a text of 30 kB so many times, each in a transaction of its own."""
    names = [f"say-{i}" for i in range(rounds)]
    components, connections = [flows.component("start", "flow.start")], []
    for before, name in zip(["start", *(f"wait-{each}" for each in names)], names, strict=False):
        components.append(flows.component(name, "logic.expression", expression="text", text=TEXT))
        components.append(flows.component(f"wait-{name}", "flow.delay", seconds=0.001))
        connections += [flows.control(before, name), flows.control(name, f"wait-{name}", "success")]
    components.append(flows.component("end", "flow.end"))
    return flows.document(components, [*connections, flows.control(f"wait-{names[-1]}", "end")])


async def set_limit(api: Api, value: int | None) -> None:
    mask = {"paths": ["value"]}
    await api.limits.UpdateLimit(limit_pb2.UpdateLimitRequest(parent="acme", name=NAME, update_mask=mask, value=value))


async def held(api: Api) -> int:
    (found,) = [limit.held for limit in (await ask(api, "GetLimits", parent="acme")).limits if limit.name == NAME]
    return found


async def stored(url: str) -> int:
    ((size,),) = await select(url, STORED)
    return int(size)


def limit_in(error: Any) -> dict[str, str]:
    info = error_details_pb2.ErrorInfo()
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert unpack(error, info)
    return {"reason": info.reason, **info.metadata}


async def refusal(call: Any) -> dict[str, str]:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    return limit_in(raised.value)


async def start(api: Api, session_id: str) -> None:
    await ask(api, "StartExecution", session=session_id, spec={"definition": "workflow"})


async def test_what_logs_beyond_the_limit_fails_and_nothing_starts_until_a_blob_is_deleted(api: Api, server: Served) -> None:
    session_id = await api.session(loud(20))
    await acme.blob(api, "acme/other")
    await api.put(flows.steps(2), revision="acme/other@draft")
    other = (await acme.session(api, "acme/other@draft")).id
    apart = await api.session(flows.steps(2), organization="apart")
    await set_limit(api, MOST)
    ended = await run(api, session_id)
    assert ended.state == execution_pb2.EXECUTION_STATE_FAILED
    assert ended.failure.reason == "LOG_LIMIT"
    assert f"{NAME} is {MOST}" in ended.failure.message
    organization = await ask(api, "GetOrganization", organization="acme")
    told = {"reason": "LIMIT_EXCEEDED", "limit": NAME, "value": str(MOST), "resource": organization.organization.id}
    for full in (session_id, other):
        assert await refusal(start(api, full)) == told
    assert await held(api) >= MOST
    await start(api, apart)
    await set_limit(api, None)
    await run(api, other)
    await set_limit(api, MOST)
    await acme.delete_blob(api, cascade=True)
    await collected(server.settings.url)
    assert await held(api) == 0
    assert (await run(api, other)).state == execution_pb2.EXECUTION_STATE_COMPLETED


async def test_a_log_is_counted_when_it_has_grown_enough_and_to_its_end_when_its_session_is_closed(
    api: Api, server: Served
) -> None:
    session_id = await api.session(flows.steps(2))
    await run(api, session_id)
    assert await held(api) == 0
    await ask(api, "CloseSession", session=session_id)
    assert await held(api) == await stored(server.settings.url) > 2 * SESSION_EVENT_BYTES


async def test_session_objects_are_counted_as_well_and_refused_beyond_the_limit(api: Api, server: Served) -> None:
    session_id = await api.session(flows.steps(2))
    put = partial(ask, api, "PutSessionObject", session=session_id, alias="counter", value={"number_value": 1})
    await put()
    await set_limit(api, COUNT_BYTES)
    await execute(server.settings.url, f"UPDATE sessions SET log_bytes = {COUNT_BYTES - 2 * SESSION_EVENT_BYTES}")
    await put()
    assert await held(api) == 0
    for _ in range(2):
        assert (await refusal(put()))["limit"] == NAME
    await ask(api, "DeleteSessionObject", session=session_id, alias="counter")
    assert await held(api) == COUNT_BYTES
    await set_limit(api, None)
    await put()


async def test_two_servers_on_one_database_count_together(tmp_path: Path, database_url: str) -> None:
    """On a SQLite file it is one server, and as many at once."""
    async with together(tmp_path, database_url) as clients:
        apis = [api for _, api in clients]
        await apis[0].session(loud(8))
        sessions = [(await acme.session(apis[0], "acme/pipeline@draft")).id for _ in range(4)]
        await asyncio.gather(*(run(api, session_id) for api in apis for session_id in sessions for _ in range(2)))
        assert {await held(api) for api in apis} != {0}
        for number, session in enumerate((await ask(apis[0], "ListSessions", blob="acme/pipeline")).sessions):
            await ask(apis[number % len(apis)], "CloseSession", session=session.id)
        assert {await held(api) for api in apis} == {await stored(database_url)}
        await set_limit(apis[0], await held(apis[0]))
        session_id = (await acme.session(apis[0], "acme/pipeline@draft")).id
        for api in apis:
            assert (await refusal(start(api, session_id)))["limit"] == NAME


@pytest.mark.timeout(3600)
async def test_however_often_a_server_is_killed_nothing_counts_twice_and_less_than_a_step_is_uncounted(
    tmp_path: Path, database_url: str
) -> None:
    seed, acknowledged = random.Random(20261127), []
    server = ServerProcess(tmp_path / "data", database_url, lease_seconds=1)
    async with server.running():
        async with connected(server.address, server.admin_key) as api:
            session_id = await api.session(loud(3))

        async def work(api: Api) -> None:
            try:
                while True:
                    await start(api, session_id)
                    acknowledged.append(session_id)
                    await asyncio.sleep(seed.random() * 0.2)
            except grpc.aio.AioRpcError:
                return

        for _ in range(KILLS):
            await work_until_killed(server, database_url, work, 3, acknowledged, seed)
        async with connected(server.address, server.admin_key) as api:
            await until(lambda: nothing_runs(database_url))
            size, counted = await stored(database_url), await held(api)
            assert size - COUNT_BYTES < counted <= size
            await ask(api, "CloseSession", session=session_id)
            assert await held(api) == await stored(database_url)


async def nothing_runs(url: str) -> bool:
    return not await select(url, "SELECT id FROM executions WHERE state NOT IN ('completed', 'failed', 'stopped')")
