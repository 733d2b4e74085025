"""Remembered answers, by caller, method and request id."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from blobhub_server.db.engine import Transaction
from blobhub_server.db.prepared import Prepared
from blobhub_server.db.records import Mapper
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
    sa.Column("organization_id", Id()),
    sa.Column("blob_id", Id()),
    sa.Column("user_id", Id()),
)


@dataclass(frozen=True, slots=True)
class RequestRow:
    """A remembered answer: the HMAC of the request's body, the answer, and the place it is about."""

    body_digest: str
    answer: bytes
    organization_id: str | None
    blob_id: str | None
    user_id: str | None


_REQUEST = Mapper(RequestRow, requests)
_INSERT = Prepared(requests.insert())


async def insert(tx: Transaction, rows: Sequence[Mapping[str, Any]]) -> None:
    """Remember answers. Raises IntegrityError when a request id is taken."""
    await tx.run_each(_INSERT, rows)


_FIND = Prepared(
    _REQUEST.select().where(
        requests.c.caller == sa.bindparam("who"),
        requests.c.method == sa.bindparam("what"),
        requests.c.request_id == sa.bindparam("which"),
    ),
    _REQUEST,
)


async def find(tx: Transaction, caller: str, method: str, request_id: str) -> RequestRow | None:
    """What is remembered of an earlier request."""
    return await tx.first(_FIND, who=caller, what=method, which=request_id)
