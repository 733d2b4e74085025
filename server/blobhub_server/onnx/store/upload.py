"""Uploads of models in parts. The parts themselves are in the object store."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime

import sqlalchemy as sa

from blobhub_server.db.engine import Transaction
from blobhub_server.db.keyset import Order
from blobhub_server.db.parts import delete_some
from blobhub_server.db.prepared import Prepared, is_one_of, lock_rows
from blobhub_server.db.records import Mapper, Scalar
from blobhub_server.db.schema import Choice, Id, Time, metadata
from blobhub_server.onnx.rules.upload import Upload, UploadForm, UploadState

_OPEN = sa.text("state = 'open'")
_COMPLETING = sa.text("state = 'completing'")
_UNENDED = sa.text("end_time IS NULL")
_ENDED = sa.text("end_time IS NOT NULL")

model_uploads = sa.Table(
    "model_uploads",
    metadata,
    sa.Column("id", Id(), primary_key=True),
    sa.Column("organization_id", Id(), nullable=False),
    sa.Column("blob_id", Id(), nullable=False),
    sa.Column("revision_id", Id(), nullable=False),
    sa.Column("actor_id", Id(), nullable=False),
    sa.Column("form", Choice(UploadForm, sa.String(16)), nullable=False),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("part_size", sa.BigInteger, nullable=False),
    sa.Column("sha256", sa.String(64)),
    sa.Column("crc32c", sa.BigInteger),
    sa.Column("state", Choice(UploadState, sa.String(16)), nullable=False),
    sa.Column("parts_digest", sa.String(64)),
    sa.Column("operation_id", Id()),
    sa.Column("object_digest", sa.String(64)),
    sa.Column("create_time", Time(), nullable=False),
    sa.Column("expire_time", Time(), nullable=False),
    sa.Column("end_time", Time()),
    sa.Index("ix_model_uploads_blob_id", "blob_id", "id"),
    sa.Index("ix_model_uploads_unended", "blob_id", sqlite_where=_UNENDED, postgresql_where=_UNENDED),
    sa.Index("ix_model_uploads_expire_time", "expire_time", "id", sqlite_where=_OPEN, postgresql_where=_OPEN),
    sa.Index("ix_model_uploads_completing", "id", sqlite_where=_COMPLETING, postgresql_where=_COMPLETING),
    sa.Index("ix_model_uploads_object_digest", "object_digest", sqlite_where=_COMPLETING, postgresql_where=_COMPLETING),
    sa.Index("ix_model_uploads_end_time", "end_time", "id", sqlite_where=_ENDED, postgresql_where=_ENDED),
)

_UPLOAD = Mapper(Upload, model_uploads)
_SELECT = _UPLOAD.select()
_MOST = sa.bindparam("most", type_=sa.BigInteger)
_INSERT = Prepared(model_uploads.insert())
_ID = model_uploads.c.id == sa.bindparam("upload")
_GET = Prepared(_SELECT.where(_ID), _UPLOAD)


async def insert(tx: Transaction, upload: Upload) -> None:
    """Store a new upload."""
    await tx.run(_INSERT, **_UPLOAD.row(upload))


async def get(tx: Transaction, upload_id: str, *, lock: bool = False) -> Upload | None:
    """One upload. With `lock` nobody else changes it until the transaction ends; the blob has to be locked before it."""
    return await tx.first(_GET.locking if lock else _GET, upload=upload_id)


_CHANGED = ("state", "parts_digest", "operation_id", "object_digest", "end_time")
_UPDATE = Prepared(model_uploads.update().where(_ID).values({name: sa.bindparam(name) for name in _CHANGED}))


async def update(tx: Transaction, changed: Sequence[Upload]) -> None:
    """Store locked uploads as they are now."""
    await tx.run_each(_UPDATE, [{"upload": each.id} | {name: getattr(each, name) for name in _CHANGED} for each in changed])


_COUNT_UNENDED = Prepared(
    sa.select(sa.func.count()).select_from(model_uploads).where(model_uploads.c.blob_id == sa.bindparam("blob"), _UNENDED),
    Scalar(int),
)


async def count_unended(tx: Transaction, blob_id: str) -> int:
    """How many uploads of a blob are open or being completed."""
    return await tx.one(_COUNT_UNENDED, blob=blob_id)


async def page(
    tx: Transaction, blob_id: str, *, states: Collection[UploadState], order_by: str, after: str, limit: int
) -> list[Upload]:
    """A blob's uploads in some states, or in any where none is named, in an order, those after a key."""
    query = _SELECT.where(model_uploads.c.blob_id == blob_id)
    if states:
        query = query.where(model_uploads.c.state.in_(sorted(states)))
    return _UPLOAD.all(await tx.execute(Order.parse(model_uploads, order_by).apply(query, after, limit)))


_UNENDED_AMONG = Prepared(
    sa.select(model_uploads.c.id).where(is_one_of(model_uploads.c.id, "uploads"), _UNENDED), Scalar(str)
)
_OBJECTS_AMONG = Prepared(
    sa.select(model_uploads.c.object_digest).where(is_one_of(model_uploads.c.object_digest, "digests"), _COMPLETING),
    Scalar(str),
)


async def unended(tx: Transaction, upload_ids: Sequence[str]) -> Collection[str]:
    """Those of some uploads that are open or being completed."""
    return await tx.all(_UNENDED_AMONG, uploads=upload_ids)


async def objects_in_use(tx: Transaction, digests: Sequence[str]) -> Collection[str]:
    """Those of some objects that uploads which are being completed were put together to."""
    return await tx.all(_OBJECTS_AMONG, digests=digests)


_EXPIRED = Prepared(
    sa.select(model_uploads.c.id)
    .where(_OPEN, model_uploads.c.expire_time <= sa.bindparam("now", type_=Time()))
    .order_by(model_uploads.c.expire_time, model_uploads.c.id)
    .limit(_MOST),
    Scalar(str),
)
_COMPLETING_AFTER = Prepared(
    _SELECT.where(_COMPLETING, model_uploads.c.id > sa.bindparam("after")).order_by(model_uploads.c.id).limit(_MOST), _UPLOAD
)
_LOCK_SOME = Prepared(
    lock_rows(_SELECT.where(is_one_of(model_uploads.c.id, "uploads")).order_by(model_uploads.c.id)), _UPLOAD
)


async def expired(tx: Transaction, now: datetime, limit: int) -> list[str]:
    """Some open uploads whose time is over, the earliest first."""
    return await tx.all(_EXPIRED, now=now, most=limit)


async def completing(tx: Transaction, after: str, limit: int) -> list[Upload]:
    """Some uploads that are being completed, in the order of their ids, those after one."""
    return await tx.all(_COMPLETING_AFTER, after=after, most=limit)


async def lock_some(tx: Transaction, upload_ids: Collection[str]) -> list[Upload]:
    """Lock some uploads, in the order of their ids; those that exist."""
    return await tx.all(_LOCK_SOME, uploads=sorted(upload_ids))


async def delete_ended_before(tx: Transaction, time: datetime, rows: int) -> int:
    """Remove so many uploads that ended before a time at most; return how many were removed."""
    return await delete_some(tx, model_uploads, model_uploads.c.end_time < time, rows)


async def collect(tx: Transaction, blob_ids: Sequence[str], rows: int) -> int:
    """Remove so many uploads of deleted blobs at most; return how many were removed."""
    return await delete_some(tx, model_uploads, model_uploads.c.blob_id.in_(blob_ids), rows)
