"""Sessions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa

from blobhub_server.blobtypes.values import Dependents
from blobhub_server.db.count import count_and_name
from blobhub_server.db.engine import Transaction
from blobhub_server.db.keyset import Order
from blobhub_server.db.prepared import Prepared, is_one_of, lock_rows
from blobhub_server.db.presence import blob_is_there
from blobhub_server.db.records import Mapper, Scalar
from blobhub_server.db.schema import Id, Time, metadata
from blobhub_server.workflow.rules.session import CLOSED, EVENT_INTERVAL, SESSION_EVENT_BYTES, Session
from blobhub_server.workflow.store import log_size as log_size_store

NOT_CLOSED = sa.text("state <> 'closed'")
_NAMED = sa.text("alias IS NOT NULL")

sessions = sa.Table(
    "sessions",
    metadata,
    sa.Column("id", Id(), primary_key=True),
    sa.Column("organization_id", Id(), nullable=False),
    sa.Column("blob_id", Id(), nullable=False),
    sa.Column("revision_id", Id(), sa.ForeignKey("revisions.id"), nullable=False),
    sa.Column("alias", sa.String(63)),
    sa.Column("description", sa.String(256), nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("closes_itself", sa.Boolean, nullable=False),
    sa.Column("last_session_sequence", sa.BigInteger, nullable=False),
    sa.Column("last_event_time", Time(), nullable=False),
    sa.Column("executions", sa.BigInteger, nullable=False),
    sa.Column("log_bytes", sa.BigInteger, nullable=False),
    sa.Column("counted_log_bytes", sa.BigInteger, nullable=False),
    sa.Column("create_time", Time(), nullable=False),
    sa.Column("update_time", Time(), nullable=False),
    sa.Index("ix_sessions_blob_id", "blob_id", "id"),
    sa.Index("ix_sessions_blob_id_state_id", "blob_id", "state", "id"),
    sa.Index("ix_sessions_blob_id_alias_id", "blob_id", "alias", "id", sqlite_where=_NAMED, postgresql_where=_NAMED),
    sa.Index("ix_sessions_revision_id_alias_id", "revision_id", "alias", "id"),
    sa.Index("ix_sessions_revision_id", "revision_id", "id"),
    sa.Index("ix_sessions_open", "blob_id", sqlite_where=NOT_CLOSED, postgresql_where=NOT_CLOSED),
    sa.Index(
        "uq_sessions_alias",
        "revision_id",
        "alias",
        unique=True,
        sqlite_where=sa.text("state <> 'closed' AND alias IS NOT NULL"),
        postgresql_where=sa.text("state <> 'closed' AND alias IS NOT NULL"),
    ),
)


_SESSION = Mapper(Session, sessions)
_INSERT = Prepared(sessions.insert())


async def insert(tx: Transaction, session: Session) -> None:
    """Store a new session. Raises IntegrityError when the alias is taken."""
    await tx.run(_INSERT, **_SESSION.row(session))


async def insert_all(tx: Transaction, new: Sequence[Session]) -> None:
    """Store new sessions. Raises IntegrityError when an alias is taken."""
    await tx.run_each(_INSERT, [_SESSION.row(session) for session in new])


_ID = sessions.c.id == sa.bindparam("session")
_THERE = blob_is_there(sessions.c.blob_id)
_GET = Prepared(_SESSION.select().where(_ID, _THERE), _SESSION)


async def get(tx: Transaction, session_id: str, *, lock: bool = False) -> Session | None:
    """One session, unless its blob was deleted. With `lock` nobody else changes it until the transaction ends."""
    return await tx.first(_GET.locking if lock else _GET, session=session_id)


_BY_ALIAS = Prepared(
    _SESSION.select().where(
        sessions.c.revision_id == sa.bindparam("revision"), sessions.c.alias == sa.bindparam("alias"), NOT_CLOSED
    ),
    _SESSION,
)


async def get_by_alias(tx: Transaction, revision_id: str, alias: str) -> Session | None:
    """The session of a revision that has an alias and is not closed."""
    return await tx.first(_BY_ALIAS, revision=revision_id, alias=alias)


_FIND = Prepared(
    _SESSION.select()
    .where(sessions.c.revision_id == sa.bindparam("revision"), sessions.c.alias == sa.bindparam("alias"))
    .order_by(sa.case((sessions.c.state == CLOSED, 1), else_=0), sessions.c.id.desc())
    .limit(1),
    _SESSION,
)


async def find(tx: Transaction, revision_id: str, alias: str) -> Session | None:
    """The session of a revision that an alias means: the one that is not closed, else the newest."""
    return await tx.first(_FIND, revision=revision_id, alias=alias)


async def page(
    tx: Transaction,
    blob_id: str,
    *,
    order_by: str,
    revision_id: str,
    alias: str,
    state: str | None,
    after: str,
    limit: int,
) -> list[Session]:
    """A blob's sessions in an order, those after `after`; with a revision of the blob only those that are bound to it."""
    bound = sessions.c.revision_id == revision_id if revision_id else sessions.c.blob_id == blob_id
    query = _SESSION.select().where(bound)
    if alias:
        query = query.where(sessions.c.alias == alias)
    if state:
        query = query.where(sessions.c.state == state)
    return _SESSION.all(await tx.execute(Order.parse(sessions, order_by).apply(query, after, limit)))


_SET_STATE = Prepared(sessions.update().where(_ID).values({name: sa.bindparam(name) for name in ("state", "update_time")}))


async def set_state(tx: Transaction, session_ids: Collection[str], state: str, now: datetime) -> None:
    """Set the state of sessions. The caller has locked them."""
    await tx.run_each(_SET_STATE, [{"session": id_, "state": state, "update_time": now} for id_ in session_ids])


async def dependents_on_revision(tx: Transaction, revision_id: str) -> Dependents:
    """The sessions that are bound to a revision, closed ones included: their history tells what ran."""
    count, ids = await count_and_name(tx, sessions.c.id, sessions.c.revision_id == revision_id)
    return Dependents(kind="sessions", count=count, ids=ids)


async def dependents_in_blob(tx: Transaction, blob_id: str) -> Dependents:
    """The sessions of a blob that are not closed."""
    count, ids = await count_and_name(tx, sessions.c.id, sessions.c.blob_id == blob_id, NOT_CLOSED)
    return Dependents(kind="open sessions", count=count, ids=ids)


_COUNT_OPEN = Prepared(
    sa.select(sa.func.count().label("open")).where(sessions.c.blob_id == sa.bindparam("blob"), NOT_CLOSED), Scalar(int)
)


async def count_open(tx: Transaction, blob_id: str) -> int:
    """How many sessions of a blob are not closed."""
    return await tx.one(_COUNT_OPEN, blob=blob_id)


async def most_executions(tx: Transaction, blob_id: str) -> int:
    """The number of executions started in the blob's session that has the most."""
    query = sa.select(sa.func.max(sessions.c.executions)).where(sessions.c.blob_id == blob_id)
    return (await tx.execute(query)).scalar() or 0


_SOME_IDS = Prepared(
    lock_rows(
        sa.select(sessions.c.id)
        .where(is_one_of(sessions.c.blob_id, "blobs"))
        .order_by(sessions.c.id)
        .limit(sa.bindparam("most", type_=sa.BigInteger))
    ),
    Scalar(str),
)


async def lock_some(tx: Transaction, blob_ids: Sequence[str], limit: int) -> list[str]:
    """Lock some sessions of deleted blobs, so that nobody writes to their logs until the transaction ends; return their ids.

    They are locked in the order of their ids, as wherever several are locked.
    """
    return await tx.all(_SOME_IDS, blobs=blob_ids, most=limit)


@dataclass(frozen=True, slots=True)
class _Removed:
    """What a removed session had of the logs of its organization, as it was counted."""

    organization_id: str
    counted_log_bytes: int


_REMOVED = Mapper(_Removed, sessions)
_REMOVE = Prepared(sessions.delete().where(is_one_of(sessions.c.id, "ids")).returning(*_REMOVED.columns), _REMOVED)


async def collect(tx: Transaction, session_ids: Sequence[str], rows: int) -> int:
    """Remove so many sessions, in which nothing is left, at most; return how many were removed.

    Their logs do not count for their organizations any more.
    """
    removed = await tx.all(_REMOVE, ids=session_ids[:rows])
    freed: Counter[str] = Counter()
    for each in removed:
        freed[each.organization_id] += each.counted_log_bytes
    await log_size_store.give_back(tx, +freed)
    return len(removed)


_LOCK = Prepared(_SESSION.select().where(is_one_of(sessions.c.id, "ids"), _THERE).order_by(sessions.c.id), _SESSION).locking


async def lock(tx: Transaction, session_ids: Collection[str]) -> dict[str, Session]:
    """Lock some sessions, so that nobody else writes to their logs; return by id those that exist, and whose blobs do."""
    return {session.id: session for session in await tx.all(_LOCK, ids=sorted(session_ids))}


_GROWN = ("last_session_sequence", "last_event_time", "executions", "log_bytes", "counted_log_bytes")
_ADVANCE = Prepared(sessions.update().where(_ID).values({name: sa.bindparam(name) for name in _GROWN}))


async def advance(tx: Transaction, grown: Sequence[Session]) -> None:
    """Store the last numbers and times of the logs of sessions, their sizes, and the numbers of executions started in them.

    The caller has locked them.
    """
    rows = [{"session": each.id} | {name: getattr(each, name) for name in _GROWN} for each in grown]
    await tx.run_each(_ADVANCE, rows)


@dataclass(frozen=True, slots=True)
class LogEnd:
    """The number and the time of the last event of a session's log, and its size."""

    organization_id: str
    last_session_sequence: int
    last_event_time: datetime
    log_bytes: int
    counted_log_bytes: int


_END = Mapper(LogEnd, sessions)
_AT = sa.bindparam("at", type_=Time())
_NEXT_TIME = sa.type_coerce(sessions.c.last_event_time, sa.BigInteger) + EVENT_INTERVAL // timedelta(microseconds=1)
_TAKE_NUMBER = Prepared(
    sessions.update()
    .where(_ID)
    .values(
        last_session_sequence=sessions.c.last_session_sequence + 1,
        log_bytes=sessions.c.log_bytes + SESSION_EVENT_BYTES,
        last_event_time=sa.case((sessions.c.last_event_time < _AT, _AT), else_=_NEXT_TIME),
    )
    .returning(*_END.columns),
    _END,
)


async def take_number(tx: Transaction, session_id: str, at: datetime) -> LogEnd:
    """Take the next number and time of a session's log, as `Session.advance` does; its row stays locked until the commit.

    They are for an event of the session itself, and the log's size counts it.
    """
    return await tx.one(_TAKE_NUMBER, session=session_id, at=at)


_COUNT = Prepared(sessions.update().where(_ID).values(counted_log_bytes=sessions.c.log_bytes))


async def count_log(tx: Transaction, session_id: str) -> None:
    """Note that a session's whole log is counted for its organization."""
    await tx.run(_COUNT, session=session_id)
