"""Tasks for tests: workflows that call workers, and workers by hand."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import flows
import grpc
from blobhub.v1 import execution_pb2, task_pb2, task_pb2_grpc
from blobhub_client import get_value
from calling import ask
from served import Api
from waiting import within_deadline

QUEUE = "acme/resize"


def calls(queue: str = "resize", *, policy: Any = None, given: Any = 0, **settings: Any) -> str:
    """Start, a task of a worker with the execution's input `given`, end; the worker's result is the execution's."""
    return flows.document(
        [
            flows.component("start", "flow.start"),
            flows.value("given", "given", persistence="execution", value=given),
            flows.component("work", "task.call", policy=policy, queue=queue, **settings),
            flows.component("end", "flow.end"),
        ],
        [
            flows.control("start", "work"),
            flows.data("given", "value", "work", "input"),
            flows.control("work", "end", "success"),
            flows.data("work", "result", "end", "value"),
        ],
    )


def compact(value: Any) -> str:
    """A value as the shortest JSON text."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def stub(api: Api) -> task_pb2_grpc.TaskServiceStub:
    """The stub of the service."""
    return task_pb2_grpc.TaskServiceStub(api.channel)


async def start(api: Api, session_id: str, given: Any = 0, definition: str = "workflow") -> execution_pb2.Execution:
    """Start an execution that is given something."""
    data = [{"alias": "given", "value_json": compact(given)}]
    return (
        await ask(api, "StartExecution", session=session_id, spec={"definition": definition, "input_data": data})
    ).execution


async def ended(api: Api, execution_id: str) -> execution_pb2.Execution:
    """An execution as it ended."""
    watch = api.executions.WatchExecution(execution_pb2.WatchExecutionRequest(execution=execution_id))
    await within_deadline(_read(watch))
    return (await ask(api, "GetExecution", execution=execution_id)).execution


async def _read(watch: grpc.aio.UnaryStreamCall) -> None:
    async for _ in watch:
        pass


def json_of(execution: execution_pb2.Execution) -> Any:
    """The result of an execution."""
    return get_value(execution, "result")


class Leases:
    """An open stream of leases, read task by task."""

    def __init__(self, call: grpc.aio.UnaryStreamCall) -> None:
        self.call = call
        self._ready: list[task_pb2.LeasedTask] = []

    async def next(self) -> task_pb2.LeasedTask:
        """The next task that comes. Raises EOFError when none comes any more."""
        while not self._ready:
            answer = await within_deadline(self.call.read())
            if answer is grpc.aio.EOF:
                raise EOFError("the stream has ended")
            self._ready += answer.tasks
        return self._ready.pop(0)


@asynccontextmanager
async def leasing(
    api: Api, queue: str = QUEUE, *, worker: str = "ann", maximum_tasks: int = 1, seconds: int = 30
) -> AsyncIterator[Leases]:
    """A stream of leases, open until the block is left."""
    request = task_pb2.LeaseTasksRequest(queue=queue, worker=worker, maximum_tasks=maximum_tasks)
    request.lease_duration.seconds = seconds
    call = stub(api).LeaseTasks(request)
    try:
        yield Leases(call)
    finally:
        call.cancel()


async def complete(api: Api, lease: str, result: Any = None) -> None:
    """Say that a task is done."""
    await stub(api).CompleteTask(task_pb2.CompleteTaskRequest(lease=lease, result_json=compact(result)))


async def fail(api: Api, lease: str, reason: str = "BROKEN", message: str = "it broke", *, retryable: bool = False) -> None:
    """Say that a task could not be done."""
    request = task_pb2.FailTaskRequest(lease=lease, reason=reason, message=message, retryable=retryable)
    await stub(api).FailTask(request)


async def extend(api: Api, lease: str, progress: str = "") -> task_pb2.ExtendLeaseResponse:
    """Renew a lease."""
    return await stub(api).ExtendLease(task_pb2.ExtendLeaseRequest(lease=lease, progress=progress))


async def give_back(api: Api, lease: str) -> None:
    """Give a task back."""
    await stub(api).ReturnTask(task_pb2.ReturnTaskRequest(lease=lease))


async def listed(api: Api, queue: str = QUEUE, state: str = "UNSPECIFIED") -> list[task_pb2.Task]:
    """The tasks of a queue."""
    request = task_pb2.ListTasksRequest(queue=queue, state=f"TASK_STATE_{state}", page_size=1000)
    return list((await stub(api).ListTasks(request)).tasks)


async def watched(watch: grpc.aio.UnaryStreamCall, waiting: int, leased: int) -> task_pb2.Queue:
    """The first answer of a watch with so many tasks."""

    async def read() -> task_pb2.Queue:
        async for answer in watch:
            if (answer.queue.waiting_tasks, answer.queue.leased_tasks) == (waiting, leased):
                return answer.queue
        raise EOFError("the stream has ended")

    return await within_deadline(read())


async def queue(api: Api, name: str = QUEUE) -> task_pb2.Queue:
    """A queue as it is now."""
    return (await stub(api).GetQueue(task_pb2.GetQueueRequest(queue=name))).queue
