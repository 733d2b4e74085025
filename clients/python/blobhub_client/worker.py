"""Workers: programs that do steps of workflows.

    worker = Worker(hub, "acme", concurrency=4)

    @worker.task("resize")
    async def resize(task: Task) -> dict:
        task.report_progress("reading")
        return {"width": task.input["width"] // 2}

    await worker.run()

The function may be `async`, or an ordinary one, which is called in a thread. What it returns is the component's `result`;
what it raises fails the task, which is tried again as the component's policy says unless that is NotRetryable. A task is
done at least once: one whose worker dies comes to another, with the same `idempotency_key`. While a function works its lease
is renewed; when the task was cancelled meanwhile, an `async` function is cancelled and others see `task.cancelled`.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import random
import re
import socket
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

import grpc
from blobhub.v1 import task_pb2, task_pb2_grpc

from blobhub_client.values import get_value, set_value

__all__ = ["NotRetryable", "Task", "Worker"]

log = logging.getLogger("blobhub_client.worker")

Handler = Callable[["Task"], Any]
AnyHandler = TypeVar("AnyHandler", bound=Handler)

LEASE_SECONDS = 30.0
MIN_RETRY_SECONDS, MAX_RETRY_SECONDS = 0.1, 10.0
TRANSIENT = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.RESOURCE_EXHAUSTED})
CALL_SECONDS, RETURN_SECONDS = 20.0, 5.0
"""How long one try of a call may take, and giving a task back."""


class NotRetryable(Exception):
    """Raised by a function whose task would fail again. `reason` is an upper-case word that workflows can tell apart."""

    def __init__(self, message: str, reason: str = "NOT_RETRYABLE") -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(eq=False)
class Task:
    """A task, as its function gets it.

    `idempotency_key` is the same whenever this step is done, and for no other step. `attempt` counts from 1. `cancelled` is
    true once nobody waits for the result any more.
    """

    id: str
    queue: str
    input: Any
    attempt: int
    idempotency_key: str
    execution_id: str
    cancelled: bool = False
    _progress: str = field(default="", repr=False)

    def report_progress(self, progress: str) -> None:
        """Say how far it has come, in up to 256 characters; it is told with the next renewal of the lease."""
        self._progress = progress[:256]


class Worker:
    """Does the tasks of queues of an organization, up to `concurrency` of each queue at a time."""

    def __init__(
        self,
        channel: grpc.aio.Channel,
        organization: str,
        *,
        concurrency: int = 1,
        name: str = "",
        lease_seconds: float = LEASE_SECONDS,
    ) -> None:
        """`channel` is a client's: `hub.channel`. `name` is what operators see: the host and the process, unless set."""
        self._stub = task_pb2_grpc.TaskServiceStub(channel)
        self._organization = organization
        self._concurrency = concurrency
        self._name = name or f"{socket.gethostname()[:80]}-{os.getpid()}-{random.getrandbits(32):08x}"
        self._lease_seconds = lease_seconds
        self._handlers: dict[str, Handler] = {}
        self._working: set[asyncio.Task[None]] = set()
        self._stopping = asyncio.Event()

    def task(self, queue: str) -> Callable[[AnyHandler], AnyHandler]:
        """A decorator: have a function do the tasks of a queue."""

        def register(handler: AnyHandler) -> AnyHandler:
            self._handlers[queue] = handler
            return handler

        return register

    def stop(self) -> None:
        """Have `run` return: no further task is begun."""
        self._stopping.set()

    async def run(self, *, grace_seconds: float = 30.0) -> None:
        """Work until `stop` is called, or this is cancelled. Raises AioRpcError when the server refuses the worker.

        When it is stopped it finishes what was begun, and gives back what is not done after `grace_seconds`; when it is
        cancelled it gives all back at once.
        """
        leasing = [asyncio.create_task(self._lease_forever(queue)) for queue in self._handlers]
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait([*leasing, stopping], return_when=asyncio.FIRST_COMPLETED)
            for task in leasing:
                if task.done():
                    task.result()
            await _ended(leasing)
            if self._working:
                await asyncio.wait(self._working, timeout=grace_seconds)
        finally:
            stopping.cancel()
            await _ended([*leasing, *self._working])

    async def _lease_forever(self, queue: str) -> None:
        """Take tasks of a queue as they come, also across interruptions."""
        request = task_pb2.LeaseTasksRequest(
            queue=f"{self._organization}/{queue}", worker=self._name, maximum_tasks=self._concurrency
        )
        request.lease_duration.FromTimedelta(timedelta(seconds=self._lease_seconds))
        wait = MIN_RETRY_SECONDS
        while True:
            stream = self._stub.LeaseTasks(request)
            try:
                async for message in stream:
                    wait = MIN_RETRY_SECONDS
                    for leased in message.tasks:
                        self._begin(queue, leased)
            except grpc.aio.AioRpcError as error:
                if error.code() not in TRANSIENT:
                    raise
                log.warning("tasks of %s are leased again: %s", queue, error.details())
            finally:
                stream.cancel()
            wait = await _pause(wait)

    def _begin(self, queue: str, leased: task_pb2.LeasedTask) -> None:
        working = asyncio.create_task(self._work(queue, leased))
        self._working.add(working)
        working.add_done_callback(self._working.discard)

    async def _work(self, queue: str, leased: task_pb2.LeasedTask) -> None:
        """Do one task, and say what came of it; or give it back, when this is cancelled."""
        task = Task(
            id=leased.task.id,
            queue=queue,
            input=get_value(leased, "input"),
            attempt=leased.task.attempt,
            idempotency_key=leased.idempotency_key,
            execution_id=leased.task.execution_id,
        )
        doing = asyncio.ensure_future(_call(self._handlers[queue], task))
        beating = asyncio.create_task(self._renew(leased.lease, task, doing))
        try:
            await asyncio.wait({doing})
        except asyncio.CancelledError:
            doing.cancel()
            beating.cancel()
            with suppress(grpc.aio.AioRpcError):  # Where it does not come through, the lease runs out.
                await self._stub.ReturnTask(task_pb2.ReturnTaskRequest(lease=leased.lease), timeout=RETURN_SECONDS)
            raise
        beating.cancel()
        if not (task.cancelled or doing.cancelled()):
            await self._tell(leased.lease, doing)

    async def _tell(self, lease: str, doing: asyncio.Future[Any]) -> None:
        """Say what came of a task: until that is answered, or nobody wants to know any more."""
        error = doing.exception()
        if error is None:
            done = task_pb2.CompleteTaskRequest(lease=lease)
            try:
                set_value(done, doing.result(), field="result")
                await self._say(self._stub.CompleteTask, done)
            except (TypeError, ValueError) as refused:
                error = NotRetryable(f"the result is no JSON value: {refused}", reason="INVALID_RESULT")
            except grpc.aio.AioRpcError as refused:
                error = NotRetryable(f"the result is refused: {refused.details()}", reason="INVALID_RESULT")
        if error is not None:
            log.warning("a task failed", exc_info=error)
            reason = error.reason if isinstance(error, NotRetryable) else _word(type(error).__name__)
            failed = task_pb2.FailTaskRequest(
                lease=lease, reason=reason, message=str(error)[:1024], retryable=not isinstance(error, NotRetryable)
            )
            await self._say(self._stub.FailTask, failed)

    async def _renew(self, lease: str, task: Task, doing: asyncio.Future[Any]) -> None:
        """Renew a lease while its task is done; end that when the server says so, or when somebody else has the task."""
        while True:
            await asyncio.sleep(self._lease_seconds / 3)
            answer = await self._say(
                self._stub.ExtendLease, task_pb2.ExtendLeaseRequest(lease=lease, progress=task._progress)
            )
            if answer is None or answer.stop:
                task.cancelled = True
                doing.cancel()
                return

    async def _say(self, call: Callable[..., Any], request: Any) -> Any:
        """Make a call until it is answered, for as long as a lease lasts; None where the lease does not hold any more.

        Raises AioRpcError for a request that is not taken.
        """
        wait, until = MIN_RETRY_SECONDS, time.monotonic() + max(self._lease_seconds, CALL_SECONDS)
        while True:
            try:
                return await call(request, timeout=CALL_SECONDS)
            except grpc.aio.AioRpcError as error:
                if error.code() is grpc.StatusCode.INVALID_ARGUMENT:
                    raise
                if error.code() not in TRANSIENT or time.monotonic() > until:
                    log.warning("%s: %s", type(request).__name__, error.details())
                    return None
            wait = await _pause(wait)


async def _pause(seconds: float) -> float:
    """Wait about so long; return how long the next time."""
    await asyncio.sleep(seconds * random.uniform(0.5, 1.0))  # noqa: S311  jitter, no secret
    return min(seconds * 2, MAX_RETRY_SECONDS)


def _call(handler: Handler, task: Task) -> Awaitable[Any]:
    if inspect.iscoroutinefunction(handler):
        made: Awaitable[Any] = handler(task)
        return made
    return asyncio.to_thread(handler, task)


def _word(name: str) -> str:
    """The name of a class of errors as a reason: `ValueError` is VALUE_ERROR."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", re.sub(r"[^A-Za-z0-9_]", "_", name)).upper()[:63] or "FAILED"


async def _ended(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
