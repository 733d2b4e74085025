"""Waits for signals: of each execution that has not ended, the steps that wait for one which nobody has sent them yet.

A row is written with the turn in which its step begins to wait. It goes with the turn in which that ends, or with a signal,
whichever is first. So of two who signal, the second does not find the wait of the first.
"""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from blobhub_server.db.engine import Transaction
from blobhub_server.db.keyset import Order
from blobhub_server.db.parts import delete_some
from blobhub_server.db.prepared import Prepared
from blobhub_server.db.presence import blob_is_there
from blobhub_server.db.records import Mapper, Scalar
from blobhub_server.db.schema import Id, Json, Time, metadata
from blobhub_server.workflow.rules.execution import STOPPING
from blobhub_server.workflow.rules.signal import SignalWait
from blobhub_server.workflow.store.execution import RUNNING, executions

_BY_TIME = ("create_time", "execution_id", "step")

waits = sa.Table(
    "waits",
    metadata,
    sa.Column("execution_id", Id(), sa.ForeignKey("executions.id"), primary_key=True),
    sa.Column("step", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("blob_id", Id(), nullable=False),
    # As JSON, because a component's id may have any character, and PostgreSQL takes no zero.
    sa.Column("component_id", Json(), nullable=False),
    sa.Column("name", sa.String(256), nullable=False),
    sa.Column("key", sa.String(256), nullable=False),
    sa.Column("create_time", Time(), nullable=False),
    sa.Column("wake_time", Time()),
    sa.Index("ix_waits_blob_id", "blob_id", *_BY_TIME),
    sa.Index("ix_waits_blob_id_name_key", "blob_id", "name", "key", *_BY_TIME),
)

_WAIT = Mapper(SignalWait, waits)
_INSERT = Prepared(waits.insert())
_EXECUTION, _STEP = waits.c.execution_id == sa.bindparam("execution"), waits.c.step == sa.bindparam("number")
_DELETE = Prepared(waits.delete().where(_EXECUTION, _STEP))
_SIGNAL = (waits.c.name == sa.bindparam("signal_name"), waits.c.key == sa.bindparam("signal_key"))


async def insert(tx: Transaction, new: Sequence[SignalWait]) -> None:
    """Store waits of executions whose rows the caller has locked."""
    await tx.run_each(_INSERT, [_WAIT.row(item) for item in new])


async def delete(tx: Transaction, ended: Sequence[tuple[str, int]]) -> None:
    """Remove waits, by execution and step, those that are there."""
    await tx.run_each(_DELETE, [{"execution": execution_id, "number": step} for execution_id, step in ended])


_own = waits.alias("own_waits")
_FIRST = sa.select(sa.func.min(_own.c.step)).where(
    _own.c.execution_id == sa.bindparam("execution"),
    _own.c.name == sa.bindparam("signal_name"),
    _own.c.key == sa.bindparam("signal_key"),
)
_CLAIM = Prepared(
    waits.delete().where(_EXECUTION, waits.c.step == _FIRST.scalar_subquery()).returning(waits.c.step), Scalar(int)
)


async def claim(tx: Transaction, execution_id: str, name: str, key: str) -> int | None:
    """Remove the wait of the first step of an execution that waits for a signal; return its number.

    It is the step that the signal ends (`interpreter.needs.waiting_steps`). The caller has locked the execution's row.
    """
    return await tx.first(_CLAIM, execution=execution_id, signal_name=name, signal_key=key)


_OLDEST = Prepared(
    sa.select(waits.c.execution_id)
    .join(executions, executions.c.id == waits.c.execution_id)
    .where(waits.c.blob_id == sa.bindparam("blob"), *_SIGNAL, executions.c.state != STOPPING, RUNNING)
    .order_by(*(waits.c[name] for name in _BY_TIME))
    .limit(1),
    Scalar(str),
)


async def oldest(tx: Transaction, blob_id: str, name: str, key: str) -> str | None:
    """The execution of a blob that has waited longest for a signal; None where none does."""
    return await tx.first(_OLDEST, blob=blob_id, signal_name=name, signal_key=key)


def order(order_by: str) -> Order:
    """The order of a list of waits."""
    return Order.parse(waits, order_by, create_time=_BY_TIME)


async def page(
    tx: Transaction, blob_id: str, *, name: str, key: str, order_by: str, after: str, limit: int
) -> list[SignalWait]:
    """A blob's waits in an order, those after `after`; only those of a name or a key, where it is not empty."""
    query = _WAIT.select().where(waits.c.blob_id == blob_id, blob_is_there(waits.c.blob_id))
    if name:
        query = query.where(waits.c.name == name)
    if key:
        query = query.where(waits.c.key == key)
    return _WAIT.all(await tx.execute(order(order_by).apply(query, after, limit)))


async def collect(tx: Transaction, execution_ids: Sequence[str], rows: int) -> int:
    """Remove so many waits of executions, which the caller has locked, at most; return how many were removed."""
    return await delete_some(tx, waits, waits.c.execution_id.in_(execution_ids), rows)
