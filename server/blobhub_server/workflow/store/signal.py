"""Signals that are kept for a blob, because nobody waited for them when they came; and how many each blob has.

The row of `signal_sizes` is also what decides which of two was first: whoever keeps a signal, and whoever begins to wait for
one, locks the row of the blob before it looks for the other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from blobhub_server.db.engine import Transaction
from blobhub_server.db.parts import delete_large, delete_some, remove_in_order
from blobhub_server.db.prepared import Prepared, upsert
from blobhub_server.db.records import Mapper
from blobhub_server.db.schema import Id, Time, metadata
from blobhub_server.workflow.rules.signal import KeptSignal

signals = sa.Table(
    "signals",
    metadata,
    sa.Column("id", Id(), primary_key=True),
    sa.Column("blob_id", Id(), nullable=False),
    sa.Column("name", sa.String(256), nullable=False),
    sa.Column("key", sa.String(256), nullable=False),
    sa.Column("value", sa.Text, nullable=False),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("create_time", Time(), nullable=False),
    sa.Index("ix_signals_blob_id", "blob_id", "name", "key", "id"),
)
signal_sizes = sa.Table(
    "signal_sizes",
    metadata,
    sa.Column("blob_id", Id(), primary_key=True),
    sa.Column("signals", sa.BigInteger, nullable=False),
    sa.Column("signal_bytes", sa.BigInteger, nullable=False),
)

_SIGNAL = Mapper(KeptSignal, signals)
_BLOB: sa.BindParameter[str] = sa.bindparam("blob")


@dataclass(frozen=True, slots=True)
class SignalSize:
    """How many signals are kept for a blob, and of how many bytes together."""

    signals: int
    signal_bytes: int


_SIZE = Mapper(SignalSize, signal_sizes)
_LOCK = Prepared(
    upsert(signal_sizes, keys=[signal_sizes.c.blob_id], changed=[signal_sizes.c.blob_id], returning=_SIZE.columns), _SIZE
)


async def lock(tx: Transaction, blob_id: str) -> SignalSize:
    """Lock what decides who was first in a blob, until the transaction ends; return how much is kept."""
    return await tx.one(_LOCK, blob_id=blob_id, signals=0, signal_bytes=0)


_ADD = Prepared(
    signal_sizes.update()
    .where(signal_sizes.c.blob_id == _BLOB)
    .values(
        signals=signal_sizes.c.signals + sa.bindparam("more", type_=sa.BigInteger),
        signal_bytes=signal_sizes.c.signal_bytes + sa.bindparam("more_bytes", type_=sa.BigInteger),
    )
)
_INSERT = Prepared(signals.insert())


async def keep(tx: Transaction, signal: KeptSignal) -> None:
    """Keep a signal for a blob that is locked."""
    await tx.run(_INSERT, **_SIGNAL.row(signal))
    await tx.run(_ADD, blob=signal.blob_id, more=1, more_bytes=signal.size)


_inner = signals.alias("kept_signals")
_OLDEST = (
    sa.select(_inner.c.id)
    .where(
        _inner.c.blob_id == _BLOB,
        _inner.c.name == sa.bindparam("signal_name"),
        _inner.c.key == sa.bindparam("signal_key"),
    )
    .order_by(_inner.c.id)
    .limit(1)
)
_TAKE = Prepared(signals.delete().where(signals.c.id == _OLDEST.scalar_subquery()).returning(*_SIGNAL.columns), _SIGNAL)


async def take(tx: Transaction, blob_id: str, name: str, key: str) -> KeptSignal | None:
    """Take the oldest signal of a name and a key that is kept for a blob, which is locked; None where there is none."""
    taken = await tx.first(_TAKE, blob=blob_id, signal_name=name, signal_key=key)
    if taken is not None:
        await tx.run(_ADD, blob=blob_id, more=-1, more_bytes=-taken.size)
    return taken


_GET_SIZE = Prepared(_SIZE.select().where(signal_sizes.c.blob_id == _BLOB), _SIZE)


async def count(tx: Transaction, blob_id: str) -> int:
    """How many signals are kept for a blob."""
    size = await tx.first(_GET_SIZE, blob=blob_id)
    return size.signals if size is not None else 0


async def count_bytes(tx: Transaction, blob_id: str) -> int:
    """How many bytes the signals have that are kept for a blob."""
    size = await tx.first(_GET_SIZE, blob=blob_id)
    return size.signal_bytes if size is not None else 0


@dataclass(frozen=True, slots=True)
class _Removed:
    blob_id: str
    size: int


_REMOVED = Mapper(_Removed, signals)


async def list_before(tx: Transaction, end: str, limit: int) -> list[tuple[str, str]]:
    """The first signals, by id and blob, whose ids are before `end`."""
    query = sa.select(signals.c.id, signals.c.blob_id).where(signals.c.id < end).order_by(signals.c.id).limit(limit)
    return [(id_, blob_id) for id_, blob_id in await tx.execute(query)]


async def remove(tx: Transaction, signal_ids: Sequence[str]) -> int:
    """Remove signals of blobs that are locked; return how many were there."""
    statement = signals.delete().where(signals.c.id.in_(signal_ids)).returning(*_REMOVED.columns)
    removed = _REMOVED.all(await tx.execute_beside(statement))
    counts, sizes = Counter[str](), Counter[str]()
    for each in removed:
        counts[each.blob_id] += 1
        sizes[each.blob_id] += each.size
    await tx.run_each(_ADD, [{"blob": id_, "more": -counts[id_], "more_bytes": -sizes[id_]} for id_ in sorted(counts)])
    return len(removed)


async def collect(tx: Transaction, blob_ids: Sequence[str], rows: int) -> int:
    """Remove what is kept for deleted blobs: so many rows, about; return how many rows they count for."""
    return await remove_in_order(
        [
            lambda left: delete_large(tx, signals, signals.c.blob_id.in_(blob_ids), left, signals.c.size),
            lambda left: delete_some(tx, signal_sizes, signal_sizes.c.blob_id.in_(blob_ids), left),
        ],
        rows,
    )
