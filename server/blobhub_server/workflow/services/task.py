"""TaskService on the wire."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial

from blobhub.v1 import task_pb2 as pb

from blobhub_server.blobtypes import json_field
from blobhub_server.blobtypes.access import Caller, Place, Resolution
from blobhub_server.blobtypes.call import Call
from blobhub_server.blobtypes.contract import Host
from blobhub_server.blobtypes.values import QueueView
from blobhub_server.rpc.paging import Page
from blobhub_server.rpc.wire import from_duration, to_timestamp
from blobhub_server.turnstile import off_loop
from blobhub_server.workflow.errors import LeaseLost
from blobhub_server.workflow.rules.task import (
    DEFAULT_LEASE,
    MAX_WORKERS_LISTED,
    Failure,
    Lease,
    Task,
    TaskState,
    lease_of,
    parse_lease,
    queue_topic,
)
from blobhub_server.workflow.store import task as store
from blobhub_server.workflow.tasks.ending import End, Ending
from blobhub_server.workflow.tasks.leasing import Leasing
from blobhub_server.workflow.tasks.watching import QueueLoad, count_load, watch_load

MAX_MESSAGE_BYTES = 1 << 20
"""A message of LeaseTasks is cut once its inputs have so many bytes."""

_STATES = {state: pb.TaskState.Value(f"TASK_STATE_{state.name}") for state in TaskState}
_STATE_OF = {number: state for state, number in _STATES.items()}


def to_proto(task: Task) -> pb.Task:
    """A task as its message."""
    return pb.Task(
        id=task.id,
        organization_id=task.organization_id,
        queue_name=task.queue,
        execution_id=task.execution_id,
        component_id=task.component_id,
        step=task.step,
        state=_STATES[task.state],
        attempt=task.attempt,
        worker=task.worker,
        progress=task.progress,
        create_time=to_timestamp(task.create_time),
        deadline=to_timestamp(task.deadline) if task.deadline else None,
        lease_expire_time=to_timestamp(task.available_time) if task.state is TaskState.LEASED else None,
        end_time=to_timestamp(task.end_time) if task.end_time else None,
    )


def _queue(queue: QueueView, load: QueueLoad) -> pb.Queue:
    """A queue as its message."""
    return pb.Queue(
        organization_id=queue.organization_id,
        name=queue.name,
        waiting_tasks=load.waiting,
        leased_tasks=sum(load.leased.values()),
        oldest_waiting_time=to_timestamp(load.oldest) if load.oldest else None,
        workers=[
            pb.QueueWorker(name=name, leased_tasks=load.leased.get(name, 0), connected=name in load.connected)
            for name in sorted({*load.leased, *load.connected})[:MAX_WORKERS_LISTED]
        ],
    )


def _leased(tasks: list[Task]) -> pb.LeaseTasksResponse:
    """Tasks as their worker gets them."""
    answer, allowance = pb.LeaseTasksResponse(), json_field.ItemAllowance()
    for task in tasks:
        made = answer.tasks.add(task=to_proto(task), lease=str(lease_of(task)), idempotency_key=task.idempotency_key)
        json_field.fill_text(made, "input", task.input or "null", allowance=allowance)
    return answer


class TaskService:
    """Hands out tasks, and takes their ends."""

    def __init__(self, host: Host, leasing: Leasing, ending: Ending) -> None:
        self._host = host
        self._leasing = leasing
        self._ending = ending

    async def LeaseTasks(self, request: pb.LeaseTasksRequest, call: Call[QueueView]) -> AsyncIterator[pb.LeaseTasksResponse]:
        queue = call.resource
        span = from_duration(request.lease_duration) if request.HasField("lease_duration") else DEFAULT_LEASE
        streaming = self._leasing.stream(
            (queue.organization_id, queue.name),
            worker=request.worker or self._host.ids(),
            maximum=request.maximum_tasks,
            span=span,
        )
        async for tasks in streaming:
            for portion in _portions(tasks):
                size = sum(len(task.input or "") for task in portion)
                yield await off_loop(size, call.caller.party, partial(_leased, portion))

    async def ExtendLease(self, request: pb.ExtendLeaseRequest, call: Call[Lease]) -> pb.ExtendLeaseResponse:
        lease = call.resource
        async with self._host.db.write() as tx:
            task = await store.extend(tx, lease, request.progress)
            now = task or await store.get(tx, lease)
        if task is not None:
            return pb.ExtendLeaseResponse(lease_expire_time=to_timestamp(task.available_time))
        if now is not None and now.lease == lease.lease_id and now.state is TaskState.CANCELLED:
            return pb.ExtendLeaseResponse(stop=True)
        raise LeaseLost("" if now is None else now.state.value)

    async def CompleteTask(self, request: pb.CompleteTaskRequest, call: Call[Lease]) -> pb.CompleteTaskResponse:
        result, _ = await off_loop(request.ByteSize(), call.caller.party, partial(json_field.read, request, "result"))
        await self._ending.end(End(lease=call.resource, result=result))
        return pb.CompleteTaskResponse()

    async def FailTask(self, request: pb.FailTaskRequest, call: Call[Lease]) -> pb.FailTaskResponse:
        failure = Failure(reason=request.reason, message=request.message, retryable=request.retryable)
        await self._ending.end(End(lease=call.resource, failure=failure))
        return pb.FailTaskResponse()

    async def ReturnTask(self, request: pb.ReturnTaskRequest, call: Call[Lease]) -> pb.ReturnTaskResponse:
        lease = call.resource
        async with self._host.db.write() as tx:
            if not await store.give_back(tx, lease):
                now = await store.get(tx, lease)
                raise LeaseLost("" if now is None else now.state.value)
            await self._host.bell.ring_after_commit(tx, [queue_topic(lease.organization_id, lease.queue)])
        return pb.ReturnTaskResponse()

    async def ListTasks(self, request: pb.ListTasksRequest, call: Call[QueueView]) -> pb.ListTasksResponse:
        queue, order_by, state = call.resource, request.order_by or "create_time", _STATE_OF.get(request.state)
        page = Page.parse(request, queue.organization_id, queue.name, state.value if state else "", order_by)
        async with self._host.db.scan(call.caller.party) as tx:
            found = await store.page(
                tx,
                queue.organization_id,
                queue.name,
                state=state,
                order_by=order_by,
                after=page.after,
                limit=page.limit + 1,
            )
        items, token = await page.fill(found, lambda task: task.id, to_proto)
        return pb.ListTasksResponse(tasks=items, next_page_token=token)

    async def GetQueue(self, request: pb.GetQueueRequest, call: Call[QueueView]) -> pb.GetQueueResponse:
        queue = call.resource
        async with self._host.db.scan(call.caller.party) as tx:
            load = await count_load(tx, (queue.organization_id, queue.name), self._leasing)
        return pb.GetQueueResponse(queue=_queue(queue, load))

    async def StreamQueue(
        self, request: pb.StreamQueueRequest, call: Call[QueueView]
    ) -> AsyncIterator[pb.StreamQueueResponse]:
        queue = call.resource
        named = (queue.organization_id, queue.name)
        async for load in watch_load(self._host, named, self._leasing, call.caller.party):
            yield pb.StreamQueueResponse(queue=_queue(queue, load))


def _portions(tasks: list[Task]) -> list[list[Task]]:
    """Tasks, as they go into messages."""
    portions: list[list[Task]] = [[]]
    size = 0
    for task in tasks:
        if portions[-1] and size + len(task.input or "") > MAX_MESSAGE_BYTES:
            portions.append([])
            size = 0
        portions[-1].append(task)
        size += len(task.input or "")
    return portions


async def locate_lease(value: str, _caller: Caller) -> Resolution[Lease] | None:
    """The locator of leases. A lease says which queue it is of; whether it holds is found out by what is done with it."""
    lease = parse_lease(value)
    if lease is None:
        return None
    return Resolution(
        place=Place(organization_id=lease.organization_id, queue=lease.queue), resource=lease, never_public=True
    )
