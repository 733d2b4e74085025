"""The Python worker: functions that do tasks, whatever happens to them, and a page that says how."""

from __future__ import annotations

import asyncio
import json
import re
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import flows
import grpc
import pytest
import tasks
from blobhub.v1 import execution_pb2, task_pb2
from blobhub_client import NotRetryable, Task, Worker
from blobhub_client.worker import Handler
from calling import ask
from served import Api, Served
from waiting import until, within_deadline

pytestmark = pytest.mark.either_database

PAGE = (Path(__file__).resolve().parent.parent / "docs" / "workers.md").read_text()
COMPLETED = execution_pb2.EXECUTION_STATE_COMPLETED


@asynccontextmanager
async def working(api: Api, handler: Handler, **settings: Any) -> AsyncIterator[Worker]:
    """A worker on the queue `resize`; leave to stop it."""
    worker = Worker(api.channel, "acme", **settings)
    worker.task("resize")(handler)
    running = asyncio.create_task(worker.run())
    try:
        yield worker
    finally:
        worker.stop()
        await within_deadline(running)


async def run(api: Api, session: str, given: Any) -> execution_pb2.Execution:
    return await tasks.ended(api, (await tasks.start(api, session, given)).id)


async def test_functions_of_both_kinds_do_tasks(api: Api) -> None:
    session = await api.session(tasks.calls())

    async def waits(task: Task) -> Any:
        await asyncio.sleep(0)
        return [task.input, task.attempt]

    def computes(task: Task) -> Any:
        assert threading.current_thread() is not threading.main_thread()
        return [task.input, task.attempt]

    for handler in (waits, computes):
        async with working(api, handler):
            assert tasks.json_of(await run(api, session, {"n": 2**60})) == [{"n": 2**60}, 1]


async def test_what_a_function_raises_fails_the_task_with_a_reason_that_workflows_can_name(api: Api) -> None:
    policy = {"retry": {"maximum_attempts": 3, "initial_interval": "0.01s"}}
    session = await api.session(tasks.calls(policy=policy))
    begun = []

    def fails(task: Task) -> Any:
        begun.append(task.attempt)
        if task.input == "never":
            raise NotRetryable("no use", reason="NO_USE")
        if task.input == "no json":
            return {1, 2}
        if task.attempt < 3:
            raise ZeroDivisionError("again")
        return "third"

    async with working(api, fails):
        assert (await run(api, session, "twice")).result.string_value == "third"
        assert begun == [1, 2, 3]
        failure = (await run(api, session, "never")).failure
        assert failure.reason == "NO_USE"
        assert "no use" in failure.message
        assert (await run(api, session, "no json")).failure.reason == "INVALID_RESULT"
    await api.put(tasks.calls(), alias="once")
    async with working(api, fails):
        once = (await tasks.start(api, session, "once", definition="once")).id
        assert (await tasks.ended(api, once)).failure.reason == "ZERO_DIVISION_ERROR"


async def test_a_lease_is_renewed_while_a_function_works_and_tells_how_far_it_is(api: Api) -> None:
    session = await api.session(tasks.calls())
    release = asyncio.Event()

    async def works(task: Task) -> Any:
        task.report_progress("half")
        await release.wait()
        return task.attempt

    async with working(api, works, lease_seconds=1.0):
        begun = await tasks.start(api, session)

        async def is_renewed() -> bool:
            (task,) = await tasks.listed(api) or [task_pb2.Task()]
            return task.progress == "half"

        await until(is_renewed)
        release.set()
        assert (await tasks.ended(api, begun.id)).result.number_value == 1


async def test_a_function_is_cancelled_when_its_execution_is_stopped(api: Api) -> None:
    session = await api.session(tasks.calls())
    begun, cancelled = asyncio.Event(), asyncio.Event()

    async def works(task: Task) -> Any:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async with working(api, works, lease_seconds=1.0):
        execution = await tasks.start(api, session)
        await within_deadline(begun.wait())
        await ask(api, "StopExecution", execution=execution.id)
        await within_deadline(cancelled.wait())


async def test_a_worker_that_stops_finishes_what_it_has_and_gives_back_what_takes_too_long(api: Api) -> None:
    session = await api.session(tasks.calls())
    begun, finish = [], asyncio.Event()

    async def works(task: Task) -> Any:
        begun.append(task.input)
        await (finish.wait() if task.input == "short" else asyncio.Event().wait())
        return "done"

    worker = Worker(api.channel, "acme", concurrency=2)
    worker.task("resize")(works)
    running = asyncio.create_task(worker.run(grace_seconds=0.5))
    short, long = [await tasks.start(api, session, given) for given in ("short", "long")]
    await until(lambda: len(begun) == 2)
    worker.stop()
    finish.set()
    await within_deadline(running)
    assert (await tasks.ended(api, short.id)).state == COMPLETED
    async with tasks.leasing(api, worker="another") as leases:
        leased = await leases.next()
        assert (leased.task.execution_id, leased.task.attempt) == (long.id, 1)


async def test_a_worker_without_access_says_so(api: Api, anonymous: Api) -> None:
    await api.session(flows.steps(1))
    worker = Worker(anonymous.channel, "acme")
    worker.task("resize")(lambda task: None)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await within_deadline(worker.run())
    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_the_worker_of_the_page_does_the_step_of_the_page(server: Served, api: Api, tmp_path: Path) -> None:
    (source,) = re.findall(r"<!-- worker -->\n```python\n(.*?)```", PAGE, re.S)
    (component,) = re.findall(r"<!-- component -->\n```json\n(.*?)```", PAGE, re.S)
    assert len(source.strip().splitlines()) <= 32
    made = flows.document(
        [flows.component("start", "flow.start"), json.loads(component), flows.component("end", "flow.end")],
        [
            flows.control("start", "resize"),
            flows.control("resize", "end", "success"),
            flows.data("resize", "result", "end", "value"),
        ],
    )
    session = await api.session(made)
    script = tmp_path / "worker.py"
    script.write_text(source)
    worker = await asyncio.create_subprocess_exec(sys.executable, str(script), server.address, server.admin_key)
    try:
        begun = (await ask(api, "StartExecution", session=session, spec={"definition": "workflow"})).execution
        assert tasks.json_of(await tasks.ended(api, begun.id)) == {"width": 32}
    finally:
        worker.terminate()
        assert await within_deadline(worker.wait()) == 0
