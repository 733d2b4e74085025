"""How tasks come to queues, and are taken from them: in the transactions that say so of their executions."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import groupby

from blobhub_server.blobtypes import json_text
from blobhub_server.blobtypes.contract import Host
from blobhub_server.db.engine import Transaction
from blobhub_server.db.notify import Doorbell
from blobhub_server.workflow.interpreter import TaskTurn
from blobhub_server.workflow.interpreter.tasks import TaskRequest
from blobhub_server.workflow.rules.execution import Execution
from blobhub_server.workflow.rules.limit import OPEN_TASKS
from blobhub_server.workflow.rules.task import Failure, Task, TaskState, failed, queue_topic
from blobhub_server.workflow.store import task as store
from blobhub_server.workflow.tasks.telling import tell_end


class Queueing:
    """Writes what turns of executions do about tasks."""

    def __init__(self, host: Host) -> None:
        self._host = host

    async def write(self, tx: Transaction, turns: Sequence[tuple[Execution, TaskTurn]]) -> None:
        """Cancel the tasks that are over, and put those that are asked for on their queues.

        The caller has locked the executions, in whose order all who write to tasks lock them.
        """
        over = [(execution.id, *attempt) for execution, turn in turns for attempt in turn.over]
        queues = {*await store.cancel(tx, over)} if over else set()
        new = [self._task(execution, request) for execution, turn in turns for request in turn.requests]
        if new:
            await store.insert(tx, await self._within_limit(tx, new))
        queues |= {(task.organization_id, task.queue) for task in new}
        await ring_queues(self._host.bell, tx, queues)

    async def _within_limit(self, tx: Transaction, new: Sequence[Task]) -> list[Task]:
        """Those of new tasks that organizations may have. The steps of the others fail: their executions are told so."""
        taken = list[Task]()
        for organization_id, own in groupby(sorted(new, key=_organization), key=_organization):
            held = await store.count_open(tx, organization_id)
            value = await self._host.limits.value(tx, OPEN_TASKS, organization_id=organization_id, blob_id="")
            for number, task in enumerate(own, held + 1):
                if number <= value:
                    taken.append(task)
                    continue
                message = f"the limit {OPEN_TASKS} is {value}: as many tasks wait for workers as may"
                failure = Failure(reason="TASK_LIMIT", message=message, retryable=True)
                body = failed(task.step, task.step_attempt, failure)
                await tell_end(self._host.bell, tx, task.execution_id, body)
        return sorted(taken, key=lambda task: task.id)

    def _task(self, execution: Execution, request: TaskRequest) -> Task:
        now = self._host.clock()
        return Task(
            id=self._host.ids(),
            organization_id=execution.organization_id,
            blob_id=execution.blob_id,
            execution_id=execution.id,
            step=request.step,
            step_attempt=request.attempt,
            component_id=request.component_id,
            queue=request.queue,
            input=json_text.write(request.input),
            in_finally=request.in_finally,
            state=TaskState.WAITING,
            attempt=0,
            worker="",
            progress="",
            lease=None,
            lost_leases=0,
            span=None,
            available_time=now,
            deadline=None if request.until is None else datetime.fromtimestamp(request.until, UTC),
            create_time=now,
            end_time=None,
        )


def _organization(task: Task) -> str:
    return task.organization_id


async def cancel_tasks(bell: Doorbell, tx: Transaction, execution_ids: Sequence[str]) -> None:
    """Cancel the tasks of executions that are being stopped: from this commit on no worker is given one.

    What a `finally` waits for is left: it is run to its end.
    """
    await ring_queues(bell, tx, {*await store.cancel_stopped(tx, execution_ids)})


async def ring_queues(bell: Doorbell, tx: Transaction, queues: set[tuple[str, str]]) -> None:
    """Ring, after the commit, for queues in which something has changed."""
    if queues:
        await bell.ring_after_commit(tx, sorted(queue_topic(*queue) for queue in queues))
