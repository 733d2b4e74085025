"""How tasks end: a worker says what came of one, and its execution goes on, in one transaction.

Many workers say so at once, so they share transactions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from blobhub_server.blobtypes.contract import Host
from blobhub_server.db.engine import Transaction
from blobhub_server.db.group import GroupCommitter
from blobhub_server.errors import LimitExceeded
from blobhub_server.workflow.errors import LeaseLost
from blobhub_server.workflow.rules.task import Failure, Lease, Task, TaskState, completed, failed
from blobhub_server.workflow.store import execution as execution_store
from blobhub_server.workflow.store import task as store
from blobhub_server.workflow.tasks.queueing import ring_queues
from blobhub_server.workflow.tasks.telling import require_room_for, tell_end


@dataclass(frozen=True, slots=True)
class End:
    """What a worker says: that the task of a lease is done with a result, or why it could not be."""

    lease: Lease
    result: Any = None
    failure: Failure | None = None

    @property
    def state(self) -> TaskState:
        """The state that the task comes to."""
        return TaskState.COMPLETED if self.failure is None else TaskState.FAILED

    def body(self, task: Task) -> dict[str, Any]:
        """The message to the execution."""
        if self.failure is None:
            return completed(task, self.result)
        return failed(task.step, task.step_attempt, self.failure)


class Ending:
    """Ends tasks."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._committer: GroupCommitter[End, Task | LeaseLost | LimitExceeded] = GroupCommitter(
            host.db, self._write, parties=(lambda end: end.lease.organization_id,)
        )

    async def close(self) -> None:
        """Finish what was said."""
        await self._committer.close()

    async def end(self, end: End) -> Task:
        """End a task, and tell its execution; return it as it is then. To say the same again changes nothing.

        Raises LeaseLost, LimitExceeded, StorageUnavailable.
        """
        answer = await self._committer.submit(end)
        if isinstance(answer, Task):
            return answer
        raise answer

    async def _write(self, tx: Transaction, ends: Sequence[End]) -> Sequence[Task | LeaseLost | LimitExceeded]:
        """End tasks in a transaction; return for each how it is then, or why it is not ended."""
        found = {end.lease: await store.get(tx, end.lease) for end in ends}
        # Before any task, as the journal locks them.
        await execution_store.lock(tx, {task.execution_id for task in found.values() if task is not None})
        answers = [await self._end(tx, end, found[end.lease]) for end in ends]
        queues = {(item.organization_id, item.queue) for item in answers if isinstance(item, Task)}
        await ring_queues(self._host.bell, tx, queues)
        return answers

    async def _end(self, tx: Transaction, end: End, task: Task | None) -> Task | LeaseLost | LimitExceeded:
        if task is None:
            return LeaseLost("")
        lease, body = end.lease, end.body(task)
        try:
            await require_room_for(tx, task.execution_id, body)
        except LimitExceeded as error:
            return error
        ended = await store.end(tx, lease, end.state)
        if ended is not None:
            await tell_end(self._host.bell, tx, ended.execution_id, body)
            return ended
        now = await store.get(tx, lease)
        if now is not None and now.lease == lease.lease_id and now.state is end.state:
            return now
        return LeaseLost("" if now is None else now.state.value)
