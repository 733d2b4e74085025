"""Request ids: what was answered to whom, so that the same request gets the same answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from blobhub_server.db.engine import Transaction
from blobhub_server.db.schema import Id, Time, metadata

requests = sa.Table(
    "requests",
    metadata,
    sa.Column("caller", Id(), primary_key=True),
    sa.Column("method", sa.String(128), primary_key=True),
    sa.Column("request_id", Id(), primary_key=True),
    sa.Column("body_digest", sa.String(64), nullable=False),
    sa.Column("answer", sa.LargeBinary, nullable=False),
    sa.Column("create_time", Time(), nullable=False),
)


async def insert(tx: Transaction, rows: Sequence[Mapping[str, Any]]) -> None:
    """Remember answers. Raises IntegrityError when a request id is taken."""
    await tx.execute(requests.insert(), [dict(row) for row in rows])


async def keep_first(tx: Transaction, row: Mapping[str, Any]) -> bool:
    """Remember an answer, unless there is one under its request id; then False."""
    statement = tx.upsert(requests, keys=list(requests.primary_key), changed=()).returning(requests.c.request_id)
    return (await tx.execute(statement, dict(row))).first() is not None


async def find(tx: Transaction, caller: str, method: str, request_id: str) -> tuple[str, bytes] | None:
    """Body digest and answer of an earlier request."""
    query = sa.select(requests.c.body_digest, requests.c.answer).where(
        requests.c.caller == caller, requests.c.method == method, requests.c.request_id == request_id
    )
    row = (await tx.execute(query)).first()
    return (row[0], row[1]) if row else None
