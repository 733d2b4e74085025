"""Operations: rows that say what is to be done, how far it has come, and how it ended."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime

import sqlalchemy as sa

from blobhub_server.db.engine import Transaction
from blobhub_server.db.keyset import Order
from blobhub_server.db.parts import delete_some
from blobhub_server.db.prepared import Prepared, is_one_of
from blobhub_server.db.presence import blob_is_there
from blobhub_server.db.records import Mapper, Scalar
from blobhub_server.db.schema import Choice, Id, Json, Name, Time, metadata
from blobhub_server.platform.rules.operation import Operation, OperationState

_OPEN = sa.text("end_time IS NULL")
_BEGUN = sa.text("end_time IS NULL AND attempts > 0")
_CLAIMED = sa.text("lease_until IS NOT NULL")
_OVER = sa.text("end_time IS NOT NULL")

operations = sa.Table(
    "operations",
    metadata,
    sa.Column("id", Id(), primary_key=True),
    sa.Column("organization_id", Id(), nullable=False),
    sa.Column("blob_id", Id(), nullable=False),
    sa.Column("revision_id", Id(), nullable=False),
    sa.Column("kind", Name(64), nullable=False),
    sa.Column("data", Json(), nullable=False),
    sa.Column("digest", sa.String(64)),
    sa.Column("actor_id", sa.String(36), nullable=False),
    sa.Column("state", Choice(OperationState, sa.String(16)), nullable=False),
    sa.Column("stage", sa.String(64), nullable=False),
    sa.Column("done_millionths", sa.BigInteger),
    sa.Column("create_time", Time(), nullable=False),
    sa.Column("start_time", Time()),
    sa.Column("end_time", Time()),
    sa.Column("error", sa.LargeBinary),
    sa.Column("response", sa.LargeBinary),
    sa.Column("sequence", sa.BigInteger, nullable=False),
    sa.Column("fence", sa.BigInteger, nullable=False),
    sa.Column("attempts", sa.BigInteger, nullable=False),
    sa.Column("server_id", Id()),
    sa.Column("lease_until", Time()),
    sa.Index("ix_operations_blob_id_id", "blob_id", "id"),
    sa.Index("ix_operations_open", "organization_id", "id", sqlite_where=_OPEN, postgresql_where=_OPEN),
    sa.Index("ix_operations_begun", "organization_id", "id", sqlite_where=_BEGUN, postgresql_where=_BEGUN),
    sa.Index("ix_operations_open_blob_id", "blob_id", sqlite_where=_OPEN, postgresql_where=_OPEN),
    sa.Index("ix_operations_open_revision_id", "revision_id", sqlite_where=_OPEN, postgresql_where=_OPEN),
    sa.Index("ix_operations_open_digest", "digest", sqlite_where=_OPEN, postgresql_where=_OPEN),
    sa.Index("ix_operations_open_server_id", "server_id", sqlite_where=_OPEN, postgresql_where=_OPEN),
    sa.Index("ix_operations_lease_until", "lease_until", sqlite_where=_CLAIMED, postgresql_where=_CLAIMED),
    sa.Index("ix_operations_end_time", "end_time", sqlite_where=_OVER, postgresql_where=_OVER),
)
"""`server_id` is the server that runs the operation, `lease_until` when others may take it over, by the database's clock."""

OPERATION = Mapper(Operation, operations)
_SELECT = OPERATION.select()
_INSERT = Prepared(operations.insert())
IS_OPEN = operations.c.end_time.is_(None)
IS_BEGUN = operations.c.attempts > sa.literal_column("0")
"""With `IS_OPEN`: that a server runs it, or went down under it. These are few, and have an index of this condition."""


async def insert(tx: Transaction, operation: Operation) -> None:
    """Store a new operation. The caller has locked its blob."""
    await tx.run(_INSERT, **OPERATION.row(operation), server_id=None, lease_until=None)


_ID = operations.c.id == sa.bindparam("operation")
_GET = Prepared(_SELECT.where(_ID, blob_is_there(operations.c.blob_id)), OPERATION)


async def get(tx: Transaction, operation_id: str) -> Operation | None:
    """One operation, if its blob is there."""
    return await tx.first(_GET, operation=operation_id)


_FIND_SOME = Prepared(_SELECT.where(is_one_of(operations.c.id, "ids")), OPERATION)


async def find_some(tx: Transaction, operation_ids: Collection[str]) -> list[Operation]:
    """Some operations, by their ids; those that exist."""
    return await tx.all(_FIND_SOME, ids=sorted(operation_ids))


async def page(
    tx: Transaction, blob_id: str, *, state: OperationState | None, kind: str, order_by: str, after: str, limit: int
) -> list[Operation]:
    """A blob's operations in an order, those after `after`."""
    query = _SELECT.where(operations.c.blob_id == blob_id)
    if state is not None:
        query = query.where(operations.c.state == state)
    if kind:
        query = query.where(operations.c.kind == kind)
    return OPERATION.all(await tx.execute(Order.parse(operations, order_by).apply(query, after, limit)))


_COUNT_OPEN = Prepared(
    sa.select(sa.func.count()).select_from(operations).where(operations.c.blob_id == sa.bindparam("blob"), IS_OPEN),
    Scalar(int),
)


async def count_open(tx: Transaction, blob_id: str) -> int:
    """How many operations of a blob have not ended."""
    return await tx.one(_COUNT_OPEN, blob=blob_id)


_CANCELLED = {
    "state": OperationState.CANCELLED,
    "end_time": sa.bindparam("now", type_=Time()),
    "sequence": operations.c.sequence + 1,
    "server_id": sa.null(),
    "lease_until": sa.null(),
}
_CANCEL = Prepared(operations.update().where(_ID, IS_OPEN).values(_CANCELLED).returning(*OPERATION.columns), OPERATION)
_CANCEL_ALL = Prepared(
    operations.update()
    .where(operations.c.revision_id == sa.bindparam("revision"), IS_OPEN)
    .values(_CANCELLED)
    .returning(operations.c.id),
    Scalar(str),
)


async def cancel(tx: Transaction, operation_id: str, now: datetime) -> Operation | None:
    """Cancel an operation; None when it has ended."""
    return await tx.first(_CANCEL, operation=operation_id, now=now)


async def cancel_of_revision(tx: Transaction, revision_id: str, now: datetime) -> list[str]:
    """Cancel the operations of a revision that have not ended; return their ids."""
    return await tx.all(_CANCEL_ALL, revision=revision_id, now=now)


_AMONG = Prepared(
    sa.select(operations.c.digest).where(is_one_of(operations.c.digest, "digests"), IS_OPEN).distinct(), Scalar(str)
)


async def digests_needed(tx: Transaction, digests: Collection[str]) -> set[str]:
    """The digests, among the given ones, of objects that operations which have not ended need."""
    return {*await tx.all(_AMONG, digests=sorted(digests))}


async def delete_ended_before(tx: Transaction, time: datetime, rows: int) -> int:
    """Remove so many operations that ended before a time at most; return how many were removed."""
    return await delete_some(tx, operations, operations.c.end_time < time, rows)


async def blobs_with_more(tx: Transaction, count: int) -> list[str]:
    """The blobs that have more operations that have ended than so many. It reads all of these."""
    over = sa.select(operations.c.blob_id).where(operations.c.end_time.is_not(None))
    return [*(await tx.execute(over.group_by(operations.c.blob_id).having(sa.func.count() > count))).scalars()]


async def delete_surplus(tx: Transaction, blob_id: str, kept: int, rows: int) -> int:
    """Remove so many of a blob's operations that have ended, but for the newest `kept`, at most; return how many."""
    ended = sa.and_(operations.c.blob_id == blob_id, operations.c.end_time.is_not(None))
    newest = sa.select(operations.c.id).where(ended).order_by(operations.c.id.desc()).offset(kept).limit(1)
    return await delete_some(tx, operations, sa.and_(ended, operations.c.id <= newest.scalar_subquery()), rows)


async def collect(tx: Transaction, blob_ids: Sequence[str], rows: int) -> int:
    """Remove so many operations of deleted blobs at most; return how many were removed."""
    return await delete_some(tx, operations, operations.c.blob_id.in_(blob_ids), rows)
