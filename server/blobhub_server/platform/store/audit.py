"""The audit log: append-only, numbered without gaps. It has no foreign keys, so entries outlive what they are about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from blobhub_server.db.engine import Transaction
from blobhub_server.db.keyset import Order
from blobhub_server.db.prepared import Prepared
from blobhub_server.db.records import Mapper, Scalar
from blobhub_server.db.schema import Id, Time, metadata
from blobhub_server.platform.rules.audit import AuditEntry

audit_entries = sa.Table(
    "audit_entries",
    metadata,
    sa.Column("sequence", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("id", Id(), nullable=False),
    sa.Column("create_time", Time(), nullable=False),
    sa.Column("method", sa.String(128), nullable=False),
    sa.Column("user_id", Id()),
    sa.Column("api_key_id", Id()),
    sa.Column("organization_id", Id()),
    sa.Column("blob_id", Id()),
    sa.Column("resource_type", sa.String(32), nullable=False),
    sa.Column("resource", sa.String(256), nullable=False),
    sa.Column("code", sa.String(32), nullable=False),
    sa.Column("reason", sa.String(64), nullable=False),
    sa.Column("domain", sa.String(64), nullable=False),
    sa.Column("request_id", sa.String(36), nullable=False),
    sa.Column("detail", sa.String(256), nullable=False),
    sa.Index("ix_audit_entries_organization_id_sequence", "organization_id", "sequence"),
    sa.Index("ix_audit_entries_blob_id_sequence", "blob_id", "sequence"),
    sa.Index("ix_audit_entries_user_id_sequence", "user_id", "sequence"),
)

audit_head = sa.Table(
    "audit_head",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("last_sequence", sa.BigInteger, nullable=False),
)
"""One row: the number of the log's last entry. A transaction that appends locks it until the commit."""

_ENTRY = Mapper(AuditEntry, audit_entries)
_TAKE = Prepared(
    audit_head.update()
    .values(last_sequence=audit_head.c.last_sequence + sa.bindparam("added"))
    .returning(audit_head.c.last_sequence),
    Scalar(int),
)
_INSERT = Prepared(audit_entries.insert())


async def take_numbers(tx: Transaction, count: int) -> int:
    """Take the next `count` numbers; return the first."""
    return await tx.one(_TAKE, added=count) - count + 1


async def insert(tx: Transaction, rows: Sequence[Mapping[str, Any]]) -> None:
    """Append entries."""
    await tx.run_each(_INSERT, rows)


async def newest(tx: Transaction) -> datetime | None:
    """When the last entry was made; None before the first."""
    query = sa.select(audit_entries.c.create_time).order_by(audit_entries.c.sequence.desc()).limit(1)
    found: datetime | None = (await tx.execute(query)).scalar()
    return found


async def last_sequence(tx: Transaction) -> int:
    """The number of the last entry; 0 before the first."""
    return int((await tx.execute(sa.select(audit_head.c.last_sequence))).scalar_one())


async def page(
    tx: Transaction,
    *,
    organization_id: str = "",
    blob_id: str = "",
    user_id: str = "",
    method: str = "",
    failures_only: bool = False,
    order_by: str = "create_time",
    after: str,
    limit: int,
) -> list[AuditEntry]:
    """Entries after a number, in an order: of a blob, of an organization, or, with neither, of the whole server."""
    query = _ENTRY.select()
    if blob_id:
        query = query.where(audit_entries.c.blob_id == blob_id)
    elif organization_id:
        query = query.where(audit_entries.c.organization_id == organization_id)
    if user_id:
        query = query.where(audit_entries.c.user_id == user_id)
    if method:
        query = query.where(audit_entries.c.method == method)
    if failures_only:
        query = query.where(audit_entries.c.code != "OK")
    return _ENTRY.all(await tx.execute(order(order_by).apply(query, after, limit)))


def order(order_by: str) -> Order:
    """The order of a list of entries: by `create_time`, which is by their numbers."""
    return Order.parse(audit_entries, order_by, create_time=("sequence",))
