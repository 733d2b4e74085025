"""Firings, and the numbering of each blob's."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from blobhub_server.db.engine import Transaction
from blobhub_server.db.parts import delete_some
from blobhub_server.db.prepared import Prepared
from blobhub_server.db.records import Mapper
from blobhub_server.db.schema import Choice, Id, Time, metadata
from blobhub_server.scheduler.rules.firing import Firing, FiringKind, FiringStatus

_ENDED = sa.text("end_sequence IS NOT NULL")

firings = sa.Table(
    "firings",
    metadata,
    sa.Column("id", Id(), primary_key=True),
    sa.Column("organization_id", Id(), nullable=False),
    sa.Column("blob_id", Id(), nullable=False),
    sa.Column("schedule_id", Id(), sa.ForeignKey("schedules.id"), nullable=False),
    sa.Column("schedule_alias", sa.String(63), nullable=False),
    sa.Column("kind", Choice(FiringKind, sa.String(16)), nullable=False),
    sa.Column("nominal_time", Time(), nullable=False),
    sa.Column("due_time", Time(), nullable=False),
    sa.Column("fire_time", Time(), nullable=False),
    sa.Column("tzdata", sa.String(16), nullable=False),
    sa.Column("schedule_digest", sa.String(64), nullable=False),
    sa.Column("actor_id", Id(), nullable=False),
    sa.Column("revision", sa.String(192), nullable=False),
    sa.Column("session", sa.String(63), nullable=False),
    sa.Column("definition", sa.String(63), nullable=False),
    sa.Column("status", Choice(FiringStatus, sa.String(16)), nullable=False),
    sa.Column("reason", sa.String(64), nullable=False),
    sa.Column("message", sa.Text, nullable=False),
    sa.Column("execution_id", Id()),
    sa.Column("session_id", Id()),
    sa.Column("execution_state", sa.String(16)),
    sa.Column("end_time", Time()),
    sa.Column("sequence", sa.BigInteger, nullable=False),
    sa.Column("end_sequence", sa.BigInteger),
    # A time of a schedule fires once of each kind, whoever asks for it.
    sa.UniqueConstraint("schedule_id", "kind", "nominal_time"),
    sa.UniqueConstraint("blob_id", "sequence"),
    sa.Index(
        "uq_firings_end_sequence", "blob_id", "end_sequence", unique=True, sqlite_where=_ENDED, postgresql_where=_ENDED
    ),
    # What a blob's log says of one schedule, whatever it says of others.
    sa.Index("ix_firings_schedule_id_sequence", "schedule_id", "sequence"),
    sa.Index(
        "ix_firings_schedule_id_end_sequence",
        "schedule_id",
        "end_sequence",
        sqlite_where=_ENDED,
        postgresql_where=_ENDED,
    ),
)

firing_logs = sa.Table(
    "firing_logs",
    metadata,
    sa.Column("blob_id", Id(), primary_key=True),
    sa.Column("first_sequence", sa.BigInteger, nullable=False),
    sa.Column("last_sequence", sa.BigInteger, nullable=False),
)
"""The numbers that a blob's log keeps. The row is locked last in a transaction, so numbers become visible in their order."""

_FIRING = Mapper(Firing, firings)
_GET = Prepared(_FIRING.select().where(firings.c.id == sa.bindparam("firing")), _FIRING)


async def get(tx: Transaction, firing_id: str) -> Firing | None:
    """One firing."""
    return await tx.first(_GET, firing=firing_id)


async def collect(tx: Transaction, schedule_ids: Sequence[str], rows: int) -> int:
    """Remove so many firings of schedules, which the caller has locked, at most; return how many were removed."""
    return await delete_some(tx, firings, firings.c.schedule_id.in_(schedule_ids), rows)


async def collect_logs(tx: Transaction, blob_ids: Sequence[str], rows: int) -> int:
    """Remove the numbering of so many deleted blobs, whose firings are removed, at most; return how many were removed."""
    return await delete_some(tx, firing_logs, firing_logs.c.blob_id.in_(blob_ids), rows)
