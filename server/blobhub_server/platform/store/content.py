"""Entries: the named pieces of a revision's content, by the digest of their bytes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime

import sqlalchemy as sa

from blobhub_server.blobtypes.contract import Entry, Selected
from blobhub_server.db.engine import Transaction
from blobhub_server.db.schema import Id, Name, Time, metadata
from blobhub_server.platform.store.revision import revisions

entries = sa.Table(
    "entries",
    metadata,
    sa.Column("id", Id(), primary_key=True),
    sa.Column("revision_id", Id(), sa.ForeignKey("revisions.id"), nullable=False),
    sa.Column("name", Name(256), nullable=False),
    sa.Column("digest", sa.String(64), nullable=False),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("create_time", Time(), nullable=False),
    sa.Column("update_time", Time(), nullable=False),
    sa.Index("uq_entries_revision_id_name", "revision_id", "name", unique=True),
)


async def insert(tx: Transaction, entry: Entry) -> None:
    """Store a new entry."""
    await tx.execute(entries.insert(), asdict(entry))


async def replace(tx: Transaction, entry_id: str, *, digest: str, size: int, now: datetime) -> None:
    """Give an entry other bytes."""
    values = {"digest": digest, "size": size, "update_time": now}
    await tx.execute(entries.update().where(entries.c.id == entry_id).values(values))


_FIND = entries.select().where(
    entries.c.revision_id == sa.bindparam("revision"),
    sa.or_(entries.c.name == sa.bindparam("wanted"), entries.c.id == sa.bindparam("wanted")),
)


async def find(tx: Transaction, revision_id: str, name_or_id: str) -> Entry | None:
    """A revision's entry of that name or id."""
    row = (await tx.execute(_FIND, {"revision": revision_id, "wanted": name_or_id})).first()
    return Entry(*row) if row else None


async def page(tx: Transaction, revision_id: str, *, after: str, limit: int | None) -> list[Entry]:
    """A revision's entries by name, those after `after`."""
    query = entries.select().where(entries.c.revision_id == revision_id, entries.c.name > after)
    return [Entry(*row) for row in await tx.execute(query.order_by(entries.c.name).limit(limit))]


async def delete(tx: Transaction, entry_id: str) -> None:
    """Remove one entry; the bytes stay, others may have the same."""
    await tx.execute(entries.delete().where(entries.c.id == entry_id))


async def delete_all(tx: Transaction, revision_id: str) -> None:
    """Remove all entries of a revision."""
    await tx.execute(entries.delete().where(entries.c.revision_id == revision_id))


async def delete_all_of_blobs(tx: Transaction, blob_ids: Selected) -> None:
    """Remove all entries of all revisions of blobs."""
    theirs = sa.select(revisions.c.id).where(revisions.c.blob_id.in_(blob_ids))
    await tx.execute(entries.delete().where(entries.c.revision_id.in_(theirs)))


async def copy(tx: Transaction, source_id: str, target_id: str, ids: Callable[[], str], now: datetime) -> None:
    """Give a new draft the entries of another revision, under new ids. No bytes are copied."""
    found = await page(tx, source_id, after="", limit=None)
    rows = [
        asdict(entry) | {"id": ids(), "revision_id": target_id, "create_time": now, "update_time": now} for entry in found
    ]
    if rows:
        await tx.execute(entries.insert(), rows)


async def count(tx: Transaction, revision_id: str) -> int:
    """How many entries a revision has."""
    query = sa.select(sa.func.count()).where(entries.c.revision_id == revision_id)
    return int((await tx.execute(query)).scalar_one())


async def fullest(tx: Transaction, blob_id: str) -> int:
    """How many entries that revision of a blob has that has the most."""
    counts = sa.select(sa.func.count(entries.c.id).label("held")).where(_of_blob(blob_id)).group_by(entries.c.revision_id)
    return (await tx.execute(sa.select(sa.func.max(counts.subquery().c.held)))).scalar() or 0


async def total(tx: Transaction, blob_id: str) -> int:
    """How many bytes of distinct content a blob's revisions hold."""
    return (await total_and_uses(tx, blob_id, ""))[0]


async def total_and_uses(tx: Transaction, blob_id: str, digest: str) -> tuple[int, int]:
    """The same, and how many entries hold the content of one digest."""
    uses = sa.func.sum(sa.case((entries.c.digest == digest, 1), else_=0)).label("uses")
    contents = sa.select(entries.c.size, uses).where(_of_blob(blob_id)).group_by(entries.c.digest, entries.c.size).subquery()
    query = sa.select(sa.func.sum(contents.c.size), sa.func.sum(contents.c.uses))
    held, used = (await tx.execute(query)).one()
    return int(held or 0), int(used or 0)


def _of_blob(blob_id: str) -> sa.ColumnElement[bool]:
    return entries.c.revision_id.in_(sa.select(revisions.c.id).where(revisions.c.blob_id == blob_id))
