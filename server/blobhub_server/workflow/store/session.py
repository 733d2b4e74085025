"""Sessions."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict
from datetime import datetime

import sqlalchemy as sa

from blobhub_server.blobtypes.values import Dependents
from blobhub_server.db.engine import Transaction, locked
from blobhub_server.db.schema import Id, Selected, Time, metadata
from blobhub_server.platform.store.blob import blobs
from blobhub_server.platform.store.dependents import dependents
from blobhub_server.workflow.rules.session import CLOSED, Session

NOT_CLOSED = sa.text("state <> 'closed'")
_NAMED = sa.text("alias IS NOT NULL")

sessions = sa.Table(
    "sessions",
    metadata,
    sa.Column("id", Id(), primary_key=True),
    sa.Column("blob_id", Id(), sa.ForeignKey("blobs.id"), nullable=False),
    sa.Column("revision_id", Id(), sa.ForeignKey("revisions.id"), nullable=False),
    sa.Column("alias", sa.String(42)),
    sa.Column("description", sa.String(256), nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("last_sequence", sa.BigInteger, nullable=False),
    sa.Column("executions", sa.BigInteger, nullable=False),
    sa.Column("create_time", Time(), nullable=False),
    sa.Column("update_time", Time(), nullable=False),
    sa.Index("ix_sessions_blob_id", "blob_id", "id"),
    sa.Index("ix_sessions_blob_id_state_id", "blob_id", "state", "id"),
    sa.Index("ix_sessions_blob_id_alias_id", "blob_id", "alias", "id", sqlite_where=_NAMED, postgresql_where=_NAMED),
    sa.Index("ix_sessions_revision_id", "revision_id"),
    sa.Index("ix_sessions_open", "blob_id", sqlite_where=NOT_CLOSED, postgresql_where=NOT_CLOSED),
    sa.Index(
        "uq_sessions_alias",
        "blob_id",
        "alias",
        unique=True,
        sqlite_where=sa.text("state <> 'closed' AND alias IS NOT NULL"),
        postgresql_where=sa.text("state <> 'closed' AND alias IS NOT NULL"),
    ),
)


async def insert(tx: Transaction, session: Session) -> None:
    """Store a new session. Raises IntegrityError when the alias is taken."""
    await tx.execute(sessions.insert(), asdict(session))


async def get(tx: Transaction, session_id: str, *, lock: bool = False) -> Session | None:
    """One session. With `lock` nobody else changes it until the transaction ends."""
    query = sessions.select().where(sessions.c.id == session_id)
    row = (await tx.execute(locked(query) if lock else query)).mappings().first()
    return Session(**row) if row else None


_LOCATE = (
    sa.select(sessions, blobs.c.org_id)
    .join(blobs, blobs.c.id == sessions.c.blob_id)
    .where(sessions.c.id == sa.bindparam("session_id"))
)


async def locate(tx: Transaction, session_id: str) -> tuple[Session, str] | None:
    """A session and the organization it belongs to."""
    row = (await tx.execute(_LOCATE, {"session_id": session_id})).first()
    return (Session(*row[:-1]), row[-1]) if row else None


async def page(tx: Transaction, blob_id: str, *, alias: str, state: str | None, after: str, limit: int) -> list[Session]:
    """A blob's sessions by id, those after `after`."""
    query = sessions.select().where(sessions.c.blob_id == blob_id, sessions.c.id > after)
    if alias:
        query = query.where(sessions.c.alias == alias)
    if state:
        query = query.where(sessions.c.state == state)
    rows = (await tx.execute(query.order_by(sessions.c.id).limit(limit))).mappings()
    return [Session(**row) for row in rows]


async def set_state(tx: Transaction, session_ids: Collection[str], state: str, now: datetime) -> None:
    """Move sessions on in their life. The caller has locked them."""
    await tx.execute(sessions.update().where(sessions.c.id.in_(session_ids)).values(state=state, update_time=now))


async def on_revision(tx: Transaction, revision_id: str) -> Dependents:
    """The sessions that are bound to a revision, closed ones included: their history tells what ran."""
    return await dependents(tx, "sessions", sessions.c.id, sessions.c.revision_id == revision_id)


async def in_blob(tx: Transaction, blob_id: str) -> Dependents:
    """The sessions of a blob that are not closed."""
    return await dependents(tx, "open sessions", sessions.c.id, sessions.c.blob_id == blob_id, sessions.c.state != CLOSED)


async def count_open(tx: Transaction, blob_id: str) -> int:
    """How many sessions of a blob are not closed."""
    query = sa.select(sa.func.count()).select_from(sessions).where(sessions.c.blob_id == blob_id, NOT_CLOSED)
    return int((await tx.execute(query)).scalar_one())


async def most_executions(tx: Transaction, blob_id: str) -> int:
    """How many executions were started in that session of a blob that had the most."""
    query = sa.select(sa.func.max(sessions.c.executions)).where(sessions.c.blob_id == blob_id)
    return (await tx.execute(query)).scalar() or 0


async def lock_all(tx: Transaction, blob_ids: Selected) -> set[str]:
    """Let nobody write to the logs of these blobs' sessions until the transaction ends; return the ids of the sessions.

    Whoever does so now finishes first. Many are locked, so by id, as everybody does who locks several.
    """
    return set((await tx.execute(locked(of_blobs(blob_ids).order_by(sessions.c.id)))).scalars())


async def delete_all(tx: Transaction, blob_ids: Selected) -> None:
    """Remove the sessions of blobs. The caller has removed what is in them."""
    await tx.execute(sessions.delete().where(sessions.c.blob_id.in_(blob_ids)))


def of_blobs(blob_ids: Selected) -> Selected:
    """The sessions of these blobs."""
    return sa.select(sessions.c.id).where(sessions.c.blob_id.in_(blob_ids))


_LOCK = locked(
    sessions.select().where(sessions.c.id.in_(sa.bindparam("session_ids", expanding=True))).order_by(sessions.c.id)
)


async def lock(tx: Transaction, session_ids: Collection[str]) -> dict[str, Session]:
    """Some sessions by id; nobody else writes to their logs until the transaction ends. Those that are gone are left out."""
    rows = await tx.execute(_LOCK, {"session_ids": sorted(session_ids)})
    return {row[0]: Session(*row) for row in rows}


_ADVANCE = (
    sessions.update()
    .where(sessions.c.id == sa.bindparam("session_id"))
    .values(last_sequence=sa.bindparam("last_sequence"), executions=sa.bindparam("executions"))
)


async def advance(tx: Transaction, grown: Sequence[Session]) -> None:
    """Store how far the logs of sessions have come, and how many executions were started in them.

    The caller has locked them.
    """
    rows = [{"session_id": s.id, "last_sequence": s.last_sequence, "executions": s.executions} for s in grown]
    await tx.execute(_ADVANCE, rows)


async def take_number(tx: Transaction, session_id: str) -> int:
    """Take the next number of a session's log; its row stays locked until the commit."""
    query = (
        sessions.update()
        .where(sessions.c.id == session_id)
        .values(last_sequence=sessions.c.last_sequence + 1)
        .returning(sessions.c.last_sequence)
    )
    return int((await tx.execute(query)).scalar_one())
