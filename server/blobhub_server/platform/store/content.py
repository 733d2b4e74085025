"""Entries: the named pieces of a revision's content, by the digest of their bytes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from datetime import datetime

import sqlalchemy as sa

from blobhub_server.blobtypes.values import Entry
from blobhub_server.db.engine import Transaction
from blobhub_server.db.keyset import Order
from blobhub_server.db.parts import PART, delete_in_parts, delete_some
from blobhub_server.db.prepared import Prepared, is_one_of
from blobhub_server.db.records import Mapper, Scalar
from blobhub_server.db.schema import Id, Name, Time, metadata
from blobhub_server.platform.rules.revision import Revision

entries = sa.Table(
    "entries",
    metadata,
    sa.Column("id", Id(), primary_key=True),
    sa.Column("revision_id", Id(), sa.ForeignKey("revisions.id"), nullable=False),
    sa.Column("blob_id", Id(), nullable=False),
    sa.Column("name", Name(256), nullable=False),
    sa.Column("digest", sa.String(64), nullable=False),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("create_time", Time(), nullable=False),
    sa.Column("update_time", Time(), nullable=False),
    sa.Index("uq_entries_revision_id_name", "revision_id", "name", unique=True),
    sa.Index("ix_entries_blob_id_digest", "blob_id", "digest"),
    sa.Index("ix_entries_digest", "digest"),
)
"""`blob_id` is that of the revision; it finds other entries of the blob with the same digest."""

_ENTRY = Mapper(Entry, entries)
_INSERT = Prepared(entries.insert())


async def insert(tx: Transaction, blob_id: str, entry: Entry) -> None:
    """Store a new entry."""
    await tx.run(_INSERT, **_ENTRY.row(entry), blob_id=blob_id)


_ID = entries.c.id == sa.bindparam("entry")
_REPLACE = Prepared(
    entries.update().where(_ID).values({name: sa.bindparam(name) for name in ("digest", "size", "update_time")})
)


async def replace(tx: Transaction, entry_id: str, *, digest: str, size: int, now: datetime) -> None:
    """Give an entry other bytes."""
    await tx.run(_REPLACE, entry=entry_id, digest=digest, size=size, update_time=now)


_WANTED: sa.BindParameter[str] = sa.bindparam("wanted")
_FIND = Prepared(
    _ENTRY.select().where(
        entries.c.revision_id == sa.bindparam("revision"), sa.or_(entries.c.name == _WANTED, entries.c.id == _WANTED)
    ),
    _ENTRY,
)


async def find(tx: Transaction, revision_id: str, name_or_id: str) -> Entry | None:
    """A revision's entry of that name or id."""
    return await tx.first(_FIND, revision=revision_id, wanted=name_or_id)


_FIND_SOME = Prepared(
    _ENTRY.select().where(entries.c.revision_id == sa.bindparam("revision"), is_one_of(entries.c.name, "names")), _ENTRY
)


async def find_some(tx: Transaction, revision_id: str, names: Collection[str]) -> dict[str, Entry]:
    """Several entries of a revision, by their names; those that there are."""
    return {entry.name: entry for entry in await tx.all(_FIND_SOME, revision=revision_id, names=sorted(names))}


_GET = Prepared(_ENTRY.select().where(_ID), _ENTRY)


async def get(tx: Transaction, entry_id: str) -> Entry | None:
    """An entry by its id, in whatever revision it is."""
    return await tx.first(_GET, entry=entry_id)


async def page(
    tx: Transaction, revision_id: str, *, after: str, limit: int | None, prefix: str = "", descending: bool = False
) -> list[Entry]:
    """A revision's entries by name, those after `after`."""
    query = _ENTRY.select().where(entries.c.revision_id == revision_id)
    order = Order(columns=(entries.c.name,), descending=descending)
    if prefix:
        query = query.where(order.begins(entries.c.name, prefix, after))
    return _ENTRY.all(await tx.execute(order.apply(query, after, limit)))


_DELETE = Prepared(entries.delete().where(_ID))


async def delete(tx: Transaction, entry_id: str) -> None:
    """Remove one entry; the bytes stay, others may have the same."""
    await tx.run(_DELETE, entry=entry_id)


async def delete_all(tx: Transaction, revision_id: str) -> None:
    """Remove all entries of a revision."""
    await delete_in_parts(tx, entries, entries.c.revision_id == revision_id)


async def collect(tx: Transaction, blob_ids: Sequence[str], rows: int) -> int:
    """Remove so many entries of revisions of deleted blobs at most; return how many were removed."""
    return await delete_some(tx, entries, entries.c.blob_id.in_(blob_ids), rows)


async def copy(tx: Transaction, source_id: str, draft: Revision, ids: Callable[[], str]) -> None:
    """Give a new draft the entries of another revision, under new ids, part by part. No bytes are copied."""
    place = {"revision_id": draft.id, "blob_id": draft.blob_id}
    times = {"create_time": draft.create_time, "update_time": draft.create_time}
    after: str | None = ""
    while after is not None:
        found = await page(tx, source_id, after=after, limit=PART)
        await tx.run_each(_INSERT, [_ENTRY.row(entry) | place | times | {"id": ids()} for entry in found])
        after = found[-1].name if len(found) == PART else None
        await asyncio.sleep(0)


_HOLDS = Prepared(
    sa.select(sa.exists().where(entries.c.blob_id == sa.bindparam("blob"), entries.c.digest == _WANTED)), Scalar(bool)
)


async def holds(tx: Transaction, blob_id: str, digest: str) -> bool:
    """True when any revision of a blob holds the content of a digest."""
    return await tx.one(_HOLDS, blob=blob_id, wanted=digest)


_MOST_BYTES = Prepared(
    sa.select(sa.func.coalesce(sa.func.max(entries.c.size), 0)).where(
        entries.c.blob_id == sa.bindparam("blob"), entries.c.name == _WANTED
    ),
    Scalar(int),
)


async def most_bytes(tx: Transaction, blob_id: str, name: str) -> int:
    """The size of the largest entry of a name in any revision of a blob; 0 when there is none."""
    return await tx.one(_MOST_BYTES, blob=blob_id, wanted=name)


_AMONG = Prepared(sa.select(entries.c.digest).where(is_one_of(entries.c.digest, "digests")).distinct(), Scalar(str))


async def find_held(tx: Transaction, digests: Collection[str]) -> set[str]:
    """The digests, among the given ones, that any entry refers to."""
    return {*await tx.all(_AMONG, digests=sorted(digests))}


async def unshared_bytes(tx: Transaction, revision_id: str) -> int:
    """How many bytes a revision holds that no other revision of its blob holds, each digest counted once."""
    own, others = entries.alias("own"), entries.alias("others")
    elsewhere = sa.exists().where(
        others.c.blob_id == own.c.blob_id, others.c.digest == own.c.digest, others.c.revision_id != revision_id
    )
    alone = sa.select(own.c.digest, own.c.size).where(own.c.revision_id == revision_id, ~elsewhere).distinct().subquery()
    return int((await tx.execute(sa.select(sa.func.sum(alone.c.size)))).scalar() or 0)
