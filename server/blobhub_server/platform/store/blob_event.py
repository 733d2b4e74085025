"""The events of blobs: an append-only log for each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from blobhub_server.db.engine import Transaction
from blobhub_server.db.parts import delete_some
from blobhub_server.db.prepared import Prepared
from blobhub_server.db.records import Mapper
from blobhub_server.db.schema import Id, metadata


@dataclass(frozen=True, slots=True)
class BlobEventLine:
    """One line of a blob's log. `event` is the serialized BlobEvent, what watchers get, byte for byte.

    `shows_draft` is true when it tells of a draft, which is not for those who read a public blob without a role.
    """

    blob_id: str
    sequence: int
    type: str
    shows_draft: bool
    event: bytes


blob_events = sa.Table(
    "blob_events",
    metadata,
    sa.Column("blob_id", Id(), primary_key=True),
    sa.Column("sequence", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("type", sa.String(32), nullable=False),
    sa.Column("shows_draft", sa.Boolean, nullable=False),
    sa.Column("event", sa.LargeBinary, nullable=False),
    sqlite_with_rowid=False,
)


_LINE = Mapper(BlobEventLine, blob_events)
_APPEND = Prepared(blob_events.insert())


async def append(tx: Transaction, line: BlobEventLine) -> None:
    """Add a line."""
    await tx.run(_APPEND, **_LINE.row(line))


_SELECT = (
    _LINE.select()
    .where(blob_events.c.blob_id == sa.bindparam("blob"), blob_events.c.sequence > sa.bindparam("after"))
    .order_by(blob_events.c.sequence)
    .limit(sa.bindparam("most", type_=sa.BigInteger))
)
_PAGE = Prepared(_SELECT, _LINE)
_PUBLIC_PAGE = Prepared(_SELECT.where(blob_events.c.shows_draft.is_(sa.false())), _LINE)


async def page(tx: Transaction, blob_id: str, *, drafts: bool, after: int, limit: int) -> list[BlobEventLine]:
    """A blob's lines after a sequence; without those that show drafts unless `drafts`."""
    return await tx.all(_PAGE if drafts else _PUBLIC_PAGE, blob=blob_id, after=after, most=limit)


async def collect(tx: Transaction, blob_ids: Sequence[str], rows: int) -> int:
    """Remove so many lines of the logs of deleted blobs at most; return how many were removed."""
    return await delete_some(tx, blob_events, blob_events.c.blob_id.in_(blob_ids), rows)
