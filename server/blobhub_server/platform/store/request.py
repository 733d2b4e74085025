"""Request ids: what was answered to whom, so that the same request gets the same answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
    sa.Column("org_id", Id()),
    sa.Column("blob_id", Id()),
    sa.Column("user_id", Id()),
)


@dataclass(frozen=True, slots=True)
class RequestRow:
    """What is remembered of a request: what tells its body, its answer, and where its roles were held."""

    body_digest: str
    answer: bytes
    org_id: str | None
    blob_id: str | None
    user_id: str | None


async def insert(tx: Transaction, rows: Sequence[Mapping[str, Any]]) -> None:
    """Remember answers. Raises IntegrityError when a request id is taken."""
    await tx.execute(requests.insert(), [dict(row) for row in rows])


_FIND = sa.select(*(requests.c[name] for name in RequestRow.__slots__)).where(
    requests.c.caller == sa.bindparam("who"),
    requests.c.method == sa.bindparam("what"),
    requests.c.request_id == sa.bindparam("which"),
)


async def find(tx: Transaction, caller: str, method: str, request_id: str) -> RequestRow | None:
    """What is remembered of an earlier request."""
    row = (await tx.execute(_FIND, {"who": caller, "what": method, "which": request_id})).first()
    return RequestRow(*row) if row else None
