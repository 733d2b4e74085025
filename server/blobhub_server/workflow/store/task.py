"""Tasks of workers. A row is leased from its `available_time` on; all of it goes by the database's clock."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from blobhub_server.db.engine import Transaction
from blobhub_server.db.keyset import Order
from blobhub_server.db.now import now
from blobhub_server.db.parts import delete_large
from blobhub_server.db.prepared import Prepared, is_one_of
from blobhub_server.db.presence import blob_is_there
from blobhub_server.db.records import Mapper, Pair, Scalar
from blobhub_server.db.schema import Choice, Duration, Id, Name, Time, metadata
from blobhub_server.workflow.rules.task import KEPT_ENDED, MAX_WORKERS_LISTED, Lease, Task, TaskState

_OPEN = sa.text("end_time IS NULL")
_LEASED = sa.text("state = 'leased'")
_OVER = sa.text("end_time IS NOT NULL")

tasks = sa.Table(
    "tasks",
    metadata,
    sa.Column("id", Id(), primary_key=True),
    sa.Column("organization_id", Id(), nullable=False),
    sa.Column("blob_id", Id(), nullable=False),
    sa.Column("execution_id", Id(), nullable=False),
    sa.Column("step", sa.Integer, nullable=False),
    sa.Column("step_attempt", sa.Integer, nullable=False),
    sa.Column("component_id", sa.String(256), nullable=False),
    sa.Column("queue", Name(63), nullable=False),
    sa.Column("input", sa.Text),
    sa.Column("in_finally", sa.Boolean, nullable=False),
    sa.Column("state", Choice(TaskState, sa.String(16)), nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("worker", sa.String(128), nullable=False),
    sa.Column("progress", sa.String(256), nullable=False),
    sa.Column("lease", Id()),
    sa.Column("lost_leases", sa.Integer, nullable=False),
    sa.Column("span", Duration()),
    sa.Column("available_time", Time(), nullable=False),
    sa.Column("deadline", Time()),
    sa.Column("create_time", Time(), nullable=False),
    sa.Column("end_time", Time()),
    sa.Index("ix_tasks_organization_id_queue_id", "organization_id", "queue", "id"),
    sa.Index("ix_tasks_execution_id_step", "execution_id", "step"),
    sa.Index(
        "ix_tasks_available",
        *("organization_id", "queue", "available_time", "id"),
        sqlite_where=_OPEN,
        postgresql_where=_OPEN,
    ),
    sa.Index("ix_tasks_worker", "organization_id", "queue", "worker", sqlite_where=_LEASED, postgresql_where=_LEASED),
    sa.Index("ix_tasks_end_time", "end_time", sqlite_where=_OVER, postgresql_where=_OVER),
)

_TASK = Mapper(Task, tasks)
IS_OPEN = tasks.c.end_time.is_(None)
_THERE = blob_is_there(tasks.c.blob_id)
_IN_QUEUE = (tasks.c.organization_id == sa.bindparam("organization"), tasks.c.queue == sa.bindparam("queue_name"))

# A step that is tried again has a task of its own, whose attempts go on from those before.
_BEFORE = (
    sa.select(sa.func.coalesce(sa.func.max(tasks.c.attempt), 0))
    .where(tasks.c.execution_id == sa.bindparam("of_execution"), tasks.c.step == sa.bindparam("of_step"))
    .scalar_subquery()
)
_GIVEN = [column.name for column in tasks.c if column.name not in ("attempt", "available_time")]
_INSERT = Prepared(
    tasks.insert().values(
        {name: sa.bindparam(f"new_{name}", type_=tasks.c[name].type) for name in _GIVEN}
        | {"attempt": _BEFORE, "available_time": now()}
    )
)


async def insert(tx: Transaction, new: Sequence[Task]) -> None:
    """Store new tasks, whose attempts go on from those of the step before. They may be leased at once."""
    rows = [(_TASK.row(item), item) for item in new]
    await tx.run_each(
        _INSERT,
        [
            {f"new_{name}": row[name] for name in _GIVEN} | {"of_execution": item.execution_id, "of_step": item.step}
            for row, item in rows
        ],
    )


# Access was decided on the queue that the lease names, so a task of another queue must not be found by it.
_NAMED = (tasks.c.id == sa.bindparam("task"), *_IN_QUEUE)
_GET = Prepared(_TASK.select().where(*_NAMED, _THERE), _TASK)


def _names(lease: Lease) -> dict[str, str]:
    return {"task": lease.task_id, "organization": lease.organization_id, "queue_name": lease.queue}


async def get(tx: Transaction, lease: Lease) -> Task | None:
    """The task that a lease names, whether or not it holds, if its blob is there."""
    return await tx.first(_GET, **_names(lease))


def _after_now(span_us: sa.ColumnElement[int]) -> sa.ColumnElement[Any]:
    """The time so many microseconds after now, as `Time` keeps it."""
    return sa.type_coerce(sa.type_coerce(now(), sa.BigInteger) + span_us, Time())


_SPAN_US = sa.bindparam("span_us", type_=sa.BigInteger)
_FREE = (
    sa.select(tasks.c.id)
    .where(*_IN_QUEUE, IS_OPEN, tasks.c.available_time <= now(), _THERE)
    .order_by(tasks.c.available_time, tasks.c.id)
    .limit(sa.bindparam("most", type_=sa.BigInteger))
    .with_for_update(key_share=True, skip_locked=True)
)
_LEASE = Prepared(
    tasks.update()
    .where(tasks.c.id.in_(_FREE))
    .values(
        state=TaskState.LEASED,
        attempt=tasks.c.attempt + 1,
        worker=sa.bindparam("new_worker"),
        progress="",
        lease=sa.bindparam("new_lease"),
        lost_leases=tasks.c.lost_leases + sa.case((tasks.c.state == TaskState.LEASED, 1), else_=0),
        span=sa.type_coerce(_SPAN_US, Duration()),
        available_time=_after_now(_SPAN_US),
    )
    .returning(*_TASK.columns),
    _TASK,
)


async def lease(
    tx: Transaction, organization_id: str, queue: str, *, worker: str, lease_id: str, span: timedelta, most: int
) -> list[Task]:
    """Lease the tasks of a queue that wait longest, so many at most, to a worker. Passes by what is locked."""
    leased = await tx.all(
        _LEASE,
        organization=organization_id,
        queue_name=queue,
        new_worker=worker,
        new_lease=lease_id,
        span_us=span // timedelta(microseconds=1),
        most=most,
    )
    return sorted(leased, key=lambda task: (task.create_time, task.id))


_HELD = (*_NAMED, tasks.c.lease == sa.bindparam("held"), IS_OPEN, tasks.c.state == TaskState.LEASED)
_EXTEND = Prepared(
    tasks.update()
    .where(*_HELD)
    .values(
        available_time=_after_now(sa.type_coerce(tasks.c.span, sa.BigInteger)),
        progress=sa.func.coalesce(sa.func.nullif(sa.bindparam("new_progress"), ""), tasks.c.progress),
    )
    .returning(*_TASK.columns),
    _TASK,
)


async def extend(tx: Transaction, lease: Lease, progress: str) -> Task | None:
    """Renew a lease, and note progress where there is some; None where the lease does not hold."""
    return await tx.first(_EXTEND, **_names(lease), held=lease.lease_id, new_progress=progress)


_ENDED = {
    "state": sa.bindparam("new_state", type_=Choice(TaskState, sa.String(16))),
    "end_time": now(),
    "input": sa.null(),
}
_END = Prepared(tasks.update().where(*_HELD).values(_ENDED).returning(*_TASK.columns), _TASK)


async def end(tx: Transaction, lease: Lease, state: TaskState) -> Task | None:
    """End a task under its lease; None where that does not hold."""
    return await tx.first(_END, **_names(lease), held=lease.lease_id, new_state=state)


_RETURN = Prepared(
    tasks.update()
    .where(*_HELD)
    .values(state=TaskState.WAITING, attempt=tasks.c.attempt - 1, lease=sa.null(), progress="", available_time=now())
    .returning(tasks.c.id),
    Scalar(str),
)


async def give_back(tx: Transaction, lease: Lease) -> bool:
    """Have a task wait again, as if it had not been leased; False where the lease does not hold."""
    return await tx.first(_RETURN, **_names(lease), held=lease.lease_id) is not None


_OF_ATTEMPT = (
    tasks.c.execution_id == sa.bindparam("execution"),
    tasks.c.step == sa.bindparam("of_step"),
    tasks.c.step_attempt == sa.bindparam("of_attempt"),
)
_QUEUES = Pair(Scalar(str, "organization_id"), Scalar(str, "queue"))
_CANCEL = Prepared(
    tasks.update().where(*_OF_ATTEMPT, IS_OPEN).values(_ENDED).returning(tasks.c.organization_id, tasks.c.queue), _QUEUES
)


async def cancel(tx: Transaction, attempts: Sequence[tuple[str, int, int]]) -> list[tuple[str, str]]:
    """Cancel the tasks of attempts at steps, each an execution with step and attempt, that have not ended.

    Returns the queues of those that were cancelled, each by its organization and name.
    """
    return await tx.run_each(
        _CANCEL,
        [
            {"execution": execution_id, "of_step": step, "of_attempt": attempt, "new_state": TaskState.CANCELLED}
            for execution_id, step, attempt in attempts
        ],
    )


_CANCEL_STOPPED = Prepared(
    tasks.update()
    .where(is_one_of(tasks.c.execution_id, "executions"), IS_OPEN, ~tasks.c.in_finally)
    .values(_ENDED)
    .returning(tasks.c.organization_id, tasks.c.queue),
    _QUEUES,
)


async def cancel_stopped(tx: Transaction, execution_ids: Sequence[str]) -> list[tuple[str, str]]:
    """Cancel the tasks of executions that are stopped, but for those of a `finally`; return their queues."""
    return await tx.all(_CANCEL_STOPPED, executions=execution_ids, new_state=TaskState.CANCELLED)


_WAIT_US = sa.type_coerce(tasks.c.available_time, sa.BigInteger) - sa.type_coerce(now(), sa.BigInteger)
_NEXT = Prepared(
    sa.select(_WAIT_US.label("wait"))
    .where(*_IN_QUEUE, IS_OPEN, _THERE)
    .order_by(tasks.c.available_time, tasks.c.id)
    .limit(1),
    Scalar(int),
)


_NEXT_EXPIRY = Prepared(
    sa.select(_WAIT_US.label("wait"))
    .where(*_IN_QUEUE, IS_OPEN, tasks.c.available_time > now(), _THERE)
    .order_by(tasks.c.available_time, tasks.c.id)
    .limit(1),
    Scalar(int),
)


async def seconds_to_expiry(tx: Transaction, organization_id: str, queue: str) -> float | None:
    """How long until a lease of a queue runs out; None while there is none."""
    found = await tx.first(_NEXT_EXPIRY, organization=organization_id, queue_name=queue)
    return None if found is None else found / 1e6


async def seconds_to_next(tx: Transaction, organization_id: str, queue: str) -> float | None:
    """How long until a task of a queue may be leased, 0 or less where one may be now; None while there is none."""
    found = await tx.first(_NEXT, organization=organization_id, queue_name=queue)
    return None if found is None else found / 1e6


_COUNT_LEASED = Prepared(
    sa.select(tasks.c.worker, sa.func.count().label("count"))
    .where(*_IN_QUEUE, _LEASED, tasks.c.available_time > now())
    .group_by(tasks.c.worker)
    .order_by(tasks.c.worker)
    .limit(MAX_WORKERS_LISTED),
    Pair(Scalar(str, "worker"), Scalar(int, "count")),
)


async def count_leased(tx: Transaction, organization_id: str, queue: str) -> dict[str, int]:
    """How many tasks of a queue workers have, by their names, without those whose leases have run out."""
    return dict(await tx.all(_COUNT_LEASED, organization=organization_id, queue_name=queue))


_LAST_OVERDUE = Prepared(
    sa.select(tasks.c.worker, sa.func.max(tasks.c.lease).label("lease"))
    .where(*_IN_QUEUE, _LEASED, tasks.c.available_time <= now(), _THERE)
    .group_by(tasks.c.worker),
    Pair(Scalar(str, "worker"), Scalar(str, "lease")),
)


async def last_overdue(tx: Transaction, organization_id: str, queue: str) -> dict[str, str]:
    """The last lease of each worker, by name, that has run out while nobody else was given the task."""
    return dict(await tx.all(_LAST_OVERDUE, organization=organization_id, queue_name=queue))


_COUNT_OPEN = Prepared(
    sa.select(sa.func.count()).where(tasks.c.organization_id == sa.bindparam("organization"), IS_OPEN, _THERE), Scalar(int)
)


async def count_open(tx: Transaction, organization_id: str) -> int:
    """How many tasks of an organization have not ended. It goes over all of them, which a limit bounds."""
    return await tx.one(_COUNT_OPEN, organization=organization_id)


_COUNT_WAITING = Prepared(
    sa.select(sa.func.count().label("count"), sa.func.min(tasks.c.create_time).label("oldest")).where(
        *_IN_QUEUE, IS_OPEN, tasks.c.available_time <= now(), _THERE
    ),
    Pair(Scalar(int, "count"), Scalar(datetime, "oldest")),
)


async def count_waiting(tx: Transaction, organization_id: str, queue: str) -> tuple[int, datetime | None]:
    """How many tasks of a queue wait, and since when the oldest is there. It reads all of them."""
    return await tx.one(_COUNT_WAITING, organization=organization_id, queue_name=queue)


async def page(
    tx: Transaction, organization_id: str, queue: str, *, state: TaskState | None, order_by: str, after: str, limit: int
) -> list[Task]:
    """The tasks of a queue in an order, those after `after`."""
    query = _TASK.select().where(tasks.c.organization_id == organization_id, tasks.c.queue == queue, _THERE)
    if state is not None:
        query = query.where(tasks.c.state == state)
    return _TASK.all(await tx.execute(Order.parse(tasks, order_by).apply(query, after, limit)))


async def delete_ended(tx: Transaction, rows: int) -> int:
    """Remove so many tasks that ended long enough ago, about, at most; return how many."""
    before = sa.type_coerce(now(), sa.BigInteger) - KEPT_ENDED // timedelta(microseconds=1)
    return await delete_large(tx, tasks, sa.type_coerce(tasks.c.end_time, sa.BigInteger) < before, rows, _LENGTH)


async def collect(tx: Transaction, execution_ids: Sequence[str], rows: int) -> int:
    """Remove so many tasks of executions, which the caller has locked, about, and fewer large ones; return how many."""
    return await delete_large(tx, tasks, tasks.c.execution_id.in_(execution_ids), rows, _LENGTH)


_LENGTH = sa.func.coalesce(sa.func.length(tasks.c.input), 0)
