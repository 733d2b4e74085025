"""Signals by key: to whoever has waited longest, else kept until somebody waits, and each taken once."""

from __future__ import annotations

import asyncio
import json
import random
import uuid
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import acme
import flows
import grpc
import joining
import pytest
import schedules
from blobhub.v1 import signal_pb2, signal_pb2_grpc
from blobhub_server.blobtypes.conformance import expect_refusal
from blobhub_server.workflow.runtime import retention
from blobhub_server.workflow.runtime.retention import ROWS, SignalRetention
from calling import ask, outcome
from databases import collected, select
from scale import scaled
from served import Api, ServerProcess, connected, served
from several_servers import ended, started, state_of, together
from signals import waits
from waiting import until

BLOB = "acme/pipeline"
TABLES = ("waits", "signals", "messages")


async def send(api: Api, key: str = "", value: Any = None, **more: str) -> str:
    """Send the signal `go`; the execution that gets it."""
    fields = {"name": "go", "key": key, "value_json": json.dumps(value)} | more
    answer = await stub(api).SendSignal(signal_pb2.SendSignalRequest(blob=BLOB, **fields))
    return str(answer.execution_id)


def stub(api: Api) -> signal_pb2_grpc.SignalServiceStub:
    return signal_pb2_grpc.SignalServiceStub(api.channel)


async def result(api: Api, execution_id: str) -> list[int]:
    """What the signals of an execution have brought, once it has ended."""
    await ended(api, execution_id)
    execution = (await ask(api, "GetExecution", execution=execution_id)).execution
    assert not execution.HasField("failure"), execution.failure
    return [*map(int, execution.result.list_value)]


async def waiting(api: Api, **filters: Any) -> list[str]:
    """The executions that wait."""
    answer = await stub(api).ListWaits(signal_pb2.ListWaitsRequest(blob=BLOB, **filters))
    return [wait.execution_id for wait in answer.waits]


async def count(url: str, table: str) -> int:
    return int((await select(url, f"SELECT count(*) FROM {table}"))[0][0])


async def nothing_is_left(url: str) -> bool:
    """Whether nobody waits, and nothing is kept or under way."""
    sizes = await select(url, "SELECT coalesce(sum(signals), 0), coalesce(sum(signal_bytes), 0) FROM signal_sizes")
    return [await count(url, table) for table in TABLES] == [0, 0, 0] and [*map(int, sizes[0])] == [0, 0]


async def test_a_signal_goes_to_whoever_has_waited_longest_and_is_kept_where_nobody_waits(
    api: Api, database_url: str
) -> None:
    session_id = await api.session(waits(("go", "a")))
    oldest, newer = [await started(api, session_id) for _ in range(2)]
    assert await send(api, "b", 0) == "", "another key"
    assert await send(api, "a", 0, name="stay") == "", "another name"
    assert await send(api, "a", 1) == oldest
    assert await send(api, "a", 2) == newer
    kept = await ask(api, "SendSignal", blob=BLOB, name="go", key="a", value_json="3")
    assert kept.execution_id == ""
    assert kept.expire_time.seconds > 0
    assert await send(api, "a", 4) == ""
    assert [await result(api, id_) for id_ in (oldest, newer)] == [[1], [2]]
    later = [await started(api, session_id) for _ in range(2)]
    assert [await result(api, id_) for id_ in later] == [[3], [4]]
    assert await count(database_url, "signals") == 2, "those of the other name and key"


async def test_every_revision_and_session_of_the_blob_is_looked_at_and_no_other_blob(api: Api) -> None:
    first = await started(api, await api.session(waits(("go", ""))))
    await api.publish()
    await ask(api, "CreateRevision", blob=BLOB)
    session = (await ask(api, "CreateSession", revision=f"{BLOB}@draft")).session.id
    second = await started(api, session)
    other = await started(api, await api.session(waits(("go", "")), organization="other"))
    assert [await send(api), await send(api), await send(api)] == [first, second, ""]
    assert await state_of(api, other) == "WAITING"
    await ask(api, "StopExecution", execution=other)


async def test_what_was_sent_to_an_execution_itself_comes_first(api: Api) -> None:
    session_id = await api.session(waits(("first", ""), ("go", ""), ("go", "")))
    assert await send(api, value=2) == ""
    execution_id = await started(api, session_id)
    await ask(api, "SignalExecution", execution=execution_id, name="go", value_json="1")
    await send(api, value=0, name="first")
    assert await result(api, execution_id) == [0, 1, 2]


async def test_a_signal_to_an_execution_takes_its_wait_from_those_by_key(api: Api) -> None:
    session_id = await api.session(waits(("go", "")))
    first, second = [await started(api, session_id) for _ in range(2)]
    await ask(api, "SignalExecution", execution=first, name="go", value_json="1")
    assert await send(api, value=2) == second
    assert [await result(api, id_) for id_ in (first, second)] == [[1], [2]]


async def test_a_signal_that_is_sent_again_is_one(api: Api, database_url: str) -> None:
    session_id = await api.session(waits(("go", "")))
    request_id = str(uuid.uuid4())
    assert {*await asyncio.gather(*(send(api, value=1, request_id=request_id) for _ in range(5)))} == {""}
    execution_id = await started(api, session_id)
    assert await result(api, execution_id) == [1]
    assert await send(api, value=1, request_id=request_id) == ""
    assert await nothing_is_left(database_url)


async def test_signals_and_waits_at_the_same_moment_meet_once(tmp_path: Path, database_url: str) -> None:
    """From every server, in any order: each signal is taken by one step, and each step gets one."""
    total, keys = scaled(200, least=40), 5
    async with together(tmp_path, database_url) as found:
        clients, seed = [client for _, client in found], random.Random(1)
        sessions = [await clients[0].session(waits(("go", "0")))]
        for key in range(1, keys):
            await clients[0].put(waits(("go", str(key))), alias=f"of-{key}")

        async def start(number: int) -> str:
            key = number % keys
            spec = {"definition": f"of-{key}" if key else "workflow"}
            return (await ask(seed.choice(clients), "StartExecution", session=sessions[0], spec=spec)).execution.id

        async def signal(number: int) -> None:
            await send(seed.choice(clients), str(number % keys), number, request_id=str(uuid.uuid4()))

        work = [*(partial(start, number) for number in range(total)), *(partial(signal, number) for number in range(total))]
        seed.shuffle(work)
        made = await asyncio.gather(*(each() for each in work))
        ids = [id_ for id_ in made if id_]
        results = await asyncio.gather(*(result(seed.choice(clients), id_) for id_ in ids))
        assert sorted(value for values in results for value in values) == [*range(total)]
        await until(lambda: nothing_is_left(database_url))
        assert await waiting(clients[-1]) == []


async def test_waits_that_end_otherwise_are_waits_no_more(api: Api, database_url: str) -> None:
    """By their time, by a stop, and by the end of their execution in another branch."""
    session_id = await api.session(waits(("go", ""), timeout=0.01))
    await ended(api, await started(api, session_id))
    await api.put(waits(("go", "")), alias="patient")
    stopped = (await ask(api, "StartExecution", session=session_id, spec={"definition": "patient"})).execution.id
    assert await waiting(api) == [stopped]
    await ask(api, "StopExecution", execution=stopped)
    assert await send(api) == "", "it is stopping, or was stopped"
    await ended(api, stopped)
    await api.put(beside_an_end(), alias="beside")
    await ended(api, (await ask(api, "StartExecution", session=session_id, spec={"definition": "beside"})).execution.id)
    assert await count(database_url, "waits") == 0
    assert await waiting(api) == []


def beside_an_end() -> str:
    """A branch waits, and another one ends the whole execution."""
    return flows.document(
        [
            flows.component("start", "flow.start"),
            flows.component("wait", "flow.wait", name="stay"),
            flows.component("pause", "flow.delay", seconds=0.05),
            flows.component("end", "flow.end", terminal=True),
        ],
        [
            flows.control("start", "wait"),
            flows.control("start", "pause"),
            flows.control("wait", "end", "received"),
            flows.control("pause", "end"),
        ],
    )


@pytest.mark.either_database
async def test_waits_are_listed_with_what_they_wait_for(api: Api) -> None:
    session_id = await api.session(waits(("go", "a"), timeout=3600))
    await api.put(waits(("stay", "a")), alias="other")
    ids = [await started(api, session_id) for _ in range(3)]
    last = (await ask(api, "StartExecution", session=session_id, spec={"definition": "other"})).execution.id
    assert await waiting(api) == [*ids, last]
    assert await waiting(api, order_by="create_time desc") == [last, *reversed(ids)]
    assert await waiting(api, name="stay") == [last]
    assert await waiting(api, name="go", key="a") == ids
    assert await waiting(api, key="b") == []
    first = (await ask(api, "ListWaits", blob=BLOB, page_size=1)).waits[0]
    assert (first.execution_id, first.processor_id, first.step) == (ids[0], "wait-0", 2)
    assert (first.signal.name, first.signal.key) == ("go", "a")
    assert 3590 < first.wake_time.seconds - first.create_time.seconds < 3610
    pages, token = [], ""
    while not pages or token:
        page = await ask(api, "ListWaits", blob=BLOB, page_size=3, page_token=token)
        pages.append([wait.execution_id for wait in page.waits])
        token = page.next_page_token
    assert pages == [ids, [last]]
    await send(api, "a", 1)
    assert await waiting(api, key="a") == [*ids[1:], last]
    asked = ask(api, "ListWaits", blob=BLOB, name="x", page_token="AAAA")
    await expect_refusal(asked, grpc.StatusCode.INVALID_ARGUMENT, "INVALID_PAGE_TOKEN")


@pytest.mark.parametrize("name", ["workflow.signals_per_blob", "workflow.signal_bytes_per_blob"])
async def test_so_many_are_kept_as_the_limit_says_and_no_more(api: Api, name: str) -> None:
    """Twenty at a time, of a byte each. A wait makes room."""
    session_id = await api.session(waits(("go", "1")))
    await ask(api, "UpdateLimit", parent=BLOB, name=name, update_mask={"paths": ["value"]}, value=5)
    told = await asyncio.gather(*(outcome(send(api, "1", number % 10)) for number in range(20)))
    assert sorted(told) == ["LIMIT_EXCEEDED"] * 15 + ["OK"] * 5
    with pytest.raises(grpc.aio.AioRpcError, match=name):
        await send(api, "1", 1)
    await ended(api, await started(api, session_id))
    assert [await outcome(send(api, "1", 1)) for _ in range(2)] == ["OK", "LIMIT_EXCEEDED"]
    held = {limit.name: limit.held for limit in (await ask(api, "GetLimits", parent=BLOB)).limits}
    assert held[name] == 5


@pytest.mark.either_database
async def test_a_blob_of_another_type_gets_no_signals(api: Api) -> None:
    await acme.organization(api)
    await acme.blob(api, schedules.NIGHTLY, schedules.SCHEDULER)
    asked = ask(api, "SendSignal", blob=schedules.NIGHTLY, name="go")
    await expect_refusal(asked, grpc.StatusCode.FAILED_PRECONDITION, "WRONG_BLOB_TYPE")
    assert list((await ask(api, "ListWaits", blob=schedules.NIGHTLY)).waits) == []


async def test_signals_that_nobody_waits_for_go_after_thirty_days(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In more than one transaction; younger ones stay."""
    with joining.opening() as opened:
        async with served(tmp_path / "data", database_url) as server, connected(server.address, server.admin_key) as api:
            await api.session(waits(("go", "")))
            for number in range(ROWS + 3):
                await send(api, value=number)
            upkeep = SignalRetention(opened[0].host)
            await upkeep.take_pass()
            assert await count(database_url, "signals") == ROWS + 3
            monkeypatch.setattr(retention, "KEPT_FOR", -timedelta(minutes=1))
            await upkeep.take_pass()
            assert await nothing_is_left(database_url)


async def test_what_belongs_to_a_deleted_blob_is_collected(api: Api, database_url: str) -> None:
    await started(api, await api.session(waits(("go", ""))))
    await send(api, "other")
    assert [await count(database_url, table) for table in ("waits", "signals", "signal_sizes")] == [1, 1, 1]
    await ask(api, "DeleteBlob", blob=BLOB, cascade=True)
    assert await outcome(send(api)) != "OK"
    await collected(database_url)

    async def all_is_gone() -> bool:
        return [await count(database_url, table) for table in ("waits", "signals", "signal_sizes")] == [0, 0, 0]

    await until(all_is_gone)


async def test_no_signal_is_lost_or_taken_twice_when_the_server_is_killed(tmp_path: Path, database_url: str) -> None:
    """Signals are sent until they are answered, by a server that is killed in between."""
    total, kills, seed = scaled(60, least=12), scaled(10, least=2), random.Random(2)
    server = ServerProcess(tmp_path / "data", database_url)
    await server.start()
    key, numbers = server.admin_key, list(range(total))
    ids: list[str] = []
    seed.shuffle(numbers)

    async def patiently(call: Any) -> Any:
        while True:
            try:
                async with connected(server.address, key) as api:
                    return await call(api)
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise
            await asyncio.sleep(0.02)

    async def begin(request_id: str) -> None:
        spec = {"definition": "workflow"}
        call = lambda api: ask(api, "StartExecution", session=session_id, spec=spec, request_id=request_id)  # noqa: E731
        ids.append((await patiently(call)).execution.id)

    try:
        async with connected(server.address, key) as api:
            session_id = await api.session(waits(("go", "")))
        work = [begin(str(uuid.uuid4())) for _ in range(total)]
        work += [patiently(partial(send, value=number, request_id=str(uuid.uuid4()))) for number in numbers]
        seed.shuffle(work)
        running = asyncio.gather(*work)
        for _ in range(kills):
            await asyncio.sleep(seed.uniform(0.05, 0.3))
            server.kill()
            await server.start()
        await running
        results = [await patiently(partial(result, execution_id=id_)) for id_ in ids]
        assert sorted(value for values in results for value in values) == [*range(total)]
    finally:
        server.kill()
