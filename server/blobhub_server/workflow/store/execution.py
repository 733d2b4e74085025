"""Executions: what was requested, and the projection of the log."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from blobhub_server.db.engine import Transaction
from blobhub_server.db.keyset import Order, union
from blobhub_server.db.parts import PART, delete_large
from blobhub_server.db.portion import count_within
from blobhub_server.db.prepared import Prepared, is_one_of, lock_rows, upsert
from blobhub_server.db.presence import blob_is_there
from blobhub_server.db.records import ColumnGroup, Mapper, Scalar
from blobhub_server.db.schema import Choice, Duration, Id, Json, Time, metadata
from blobhub_server.workflow.interpreter import TERMINAL
from blobhub_server.workflow.rules.execution import STOPPING, Cause, CauseKind, Execution

STATES = ("pending", "running", "waiting", STOPPING, "completed", "failed", "stopped")
"""All states."""
RUNNING = sa.text("state NOT IN ('completed', 'failed', 'stopped')")
_CAUSED = sa.text("cause_id IS NOT NULL")
_RUNNING_CHILD = sa.text("parent_id IS NOT NULL AND state NOT IN ('completed', 'failed', 'stopped')")

executions = sa.Table(
    "executions",
    metadata,
    sa.Column("id", Id(), primary_key=True),
    sa.Column("organization_id", Id(), nullable=False),
    sa.Column("session_id", Id(), sa.ForeignKey("sessions.id"), nullable=False),
    sa.Column("blob_id", Id(), nullable=False),
    sa.Column("revision_id", Id(), nullable=False),
    sa.Column("definition_blob_id", Id(), nullable=False),
    sa.Column("definition_id", Id(), nullable=False),
    sa.Column("definition_alias", sa.String(63), nullable=False),
    sa.Column("definition_digest", sa.String(64), nullable=False),
    sa.Column("actor_id", Id(), nullable=False),
    sa.Column("cause_kind", Choice(CauseKind, sa.String(16))),
    sa.Column("cause_id", sa.String(160)),
    sa.Column("owner", Id()),
    sa.Column("fence", sa.BigInteger, nullable=False),
    sa.Column("last_message", sa.BigInteger, nullable=False),
    sa.Column("recoveries", sa.Integer, nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("step_limit", sa.Integer, nullable=False),
    sa.Column("timeout_us", Duration(), key="timeout"),
    # As bytes, so that both databases know its length without reading it.
    sa.Column("result", sa.LargeBinary),
    sa.Column("failure", Json()),
    sa.Column("last_execution_sequence", sa.BigInteger, nullable=False),
    sa.Column("create_time", Time(), nullable=False),
    sa.Column("end_time", Time()),
    sa.Column("signals", sa.Integer, nullable=False, server_default="0"),
    sa.Column("signal_bytes", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("wake_time", Time(), nullable=False, server_default="0"),
    sa.Column("rest_time", Time(), nullable=False, server_default="0"),
    sa.Column("adopted", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("parent_id", Id()),
    sa.Column("depth", sa.Integer, nullable=False, server_default="0"),
    sa.Index("ix_executions_session_id", "session_id", "create_time", "id"),
    sa.Index("ix_executions_blob_id", "blob_id", "state", "create_time", "id"),
    sa.Index("ix_executions_blob_id_definition", "blob_id", "definition_alias", "state", "create_time", "id"),
    sa.Index("ix_executions_revision_id", "revision_id", sqlite_where=RUNNING, postgresql_where=RUNNING),
    sa.Index("ix_executions_definition_blob_id", "definition_blob_id", sqlite_where=RUNNING, postgresql_where=RUNNING),
    sa.Index("ix_executions_definition_digest", "definition_digest", sqlite_where=RUNNING, postgresql_where=RUNNING),
    sa.Index("ix_executions_running", "session_id", "id", sqlite_where=RUNNING, postgresql_where=RUNNING),
    sa.Index("ix_executions_owner", "owner", "wake_time", "id", sqlite_where=RUNNING, postgresql_where=RUNNING),
    sa.Index("ix_executions_parent_id", "parent_id", "id", sqlite_where=_RUNNING_CHILD, postgresql_where=_RUNNING_CHILD),
    sa.Index("uq_executions_cause", "cause_kind", "cause_id", unique=True, sqlite_where=_CAUSED, postgresql_where=_CAUSED),
)

_CAUSE = (executions.c.cause_kind, executions.c.cause_id)


def _cause_of(row: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"cause": None if row["cause_id"] is None else Cause(kind=row["cause_kind"], id=row["cause_id"])}


def _cause_columns(execution: Execution) -> Mapping[str, Any]:
    cause = execution.cause
    return {"cause_kind": None, "cause_id": None} if cause is None else {"cause_kind": cause.kind, "cause_id": cause.id}


EXECUTION = Mapper(
    Execution,
    executions,
    groups=[
        ColumnGroup(fields=("cause",), columns=("cause_kind", "cause_id"), load=_cause_of, dump=_cause_columns),
    ],
)
SELECT = EXECUTION.select()
_ID = executions.c.id == sa.bindparam("execution")

_INSERT = Prepared(executions.insert())
# What SQLite returns of a row takes it twice as long as the row itself, so what was stored is looked up.
_INSERT_FIRST = Prepared(upsert(executions, keys=_CAUSE, changed=(), where=_CAUSED))
_STORED = Prepared(sa.select(executions.c.id).where(is_one_of(executions.c.id, "ids")), Scalar(str))


async def insert(tx: Transaction, new: Sequence[Execution]) -> Collection[str]:
    """Store new executions whose causes have none yet; return the ids of those that were stored.

    Waits for another transaction that is storing an execution of the same cause.
    """
    free = [execution for execution in new if execution.cause is None]
    caused = [execution for execution in new if execution.cause is not None]
    await tx.run_each(_INSERT, [EXECUTION.row(execution) for execution in free])
    await tx.run_each(_INSERT_FIRST, [EXECUTION.row(execution) for execution in caused])
    return {*await tx.all(_STORED, ids=[execution.id for execution in new])}


# One query for each kind: given several pairs of kind and id, SQLite would read the whole index.
_CAUSED_BY = Prepared(
    SELECT.where(executions.c.cause_kind == sa.bindparam("kind"), is_one_of(executions.c.cause_id, "ids")),
    EXECUTION,
)


async def find_by_causes(tx: Transaction, causes: Collection[Cause]) -> dict[Cause, Execution]:
    """The executions that were started by some causes."""
    found: dict[Cause, Execution] = {}
    for kind in {cause.kind for cause in causes}:
        ids = [cause.id for cause in causes if cause.kind is kind]
        records = await tx.all(_CAUSED_BY, kind=kind, ids=ids)
        found |= {record.cause: record for record in records if record.cause is not None}
    return found


_INVOKED_BY = Prepared(
    SELECT.where(
        executions.c.cause_kind == CauseKind.FIRING,
        is_one_of(executions.c.cause_id, "ids"),
        blob_is_there(executions.c.blob_id),
    ),
    EXECUTION,
)


async def find_invoked(tx: Transaction, firing_ids: Collection[str]) -> list[Execution]:
    """The executions that some firings have started, in blobs that are there."""
    return await tx.all(_INVOKED_BY, ids=sorted(firing_ids))


async def get_by_cause(tx: Transaction, cause: Cause) -> Execution | None:
    """The execution that was started by a cause."""
    return (await find_by_causes(tx, [cause])).get(cause)


@dataclass(frozen=True, slots=True)
class LockedExecution:
    """An execution's fence, the ends of its log and of its inbox; its row is locked."""

    id: str
    fence: int
    last_execution_sequence: int
    last_message: int


_LOCKED = Mapper(LockedExecution, executions)
_LOCK = Prepared(lock_rows(_LOCKED.select().where(is_one_of(executions.c.id, "ids")).order_by(executions.c.id)), _LOCKED)


async def lock(tx: Transaction, execution_ids: Collection[str]) -> dict[str, LockedExecution]:
    """Some executions by id, without those that are gone.

    Until the transaction ends no server takes them over, and nobody sends them a message.
    """
    return {row.id: row for row in await tx.all(_LOCK, ids=sorted(execution_ids))}


_PROJECTED = (
    *("recoveries", "state", "result", "failure", "last_execution_sequence", "end_time", "signals", "signal_bytes"),
    *("wake_time", "rest_time", "adopted"),
)
_PROJECT = Prepared(
    executions.update()
    .where(_ID, executions.c.fence == sa.bindparam("held_fence"))
    .values({name: sa.bindparam(name) for name in _PROJECTED})
)


async def project(tx: Transaction, changed: Sequence[Execution]) -> None:
    """Update rows to what their logs say.

    The caller has locked them and compared their fences. The fence in the WHERE is there in case it did not.
    """
    await tx.run_each(_PROJECT, [{"execution": item.id, "held_fence": item.fence, **_projection(item)} for item in changed])


def _projection(execution: Execution) -> Mapping[str, Any]:
    row = EXECUTION.row(execution)
    return {name: row[name] for name in _PROJECTED}


THERE = blob_is_there(executions.c.blob_id)
_GET = Prepared(SELECT.where(_ID, THERE), EXECUTION)


async def get(tx: Transaction, execution_id: str) -> Execution | None:
    """One execution, unless its blob was deleted."""
    return await tx.first(_GET, execution=execution_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which executions of a blob to list. Empty and None mean all of them."""

    session_id: str = ""
    definition_alias: str = ""
    state: str = ""
    created_after: datetime | None = None
    created_before: datetime | None = None


def order(order_by: str) -> Order:
    """The order of a list of executions."""
    return Order.parse(executions, order_by, create_time=("create_time", "id"))


@dataclass(frozen=True, slots=True)
class _Size:
    """The key of an execution in a list, and the bytes of its result."""

    id: str
    create_time: datetime
    size: int


_AMONG = Prepared(SELECT.where(is_one_of(executions.c.id, "ids")), EXECUTION)
_SIZE = Mapper(_Size, executions, looked_up={"size": sa.func.coalesce(sa.func.length(executions.c.result), 0)})


async def page(
    tx: Transaction, blob_id: str, only: Filter, *, order_by: str, after: str, limit: int, max_bytes: int
) -> tuple[list[Execution], str]:
    """A blob's executions in an order, those after `after`, up to the one whose result makes them `max_bytes` or more.

    Also the key of the last one, if it is bytes that end the page there; else "".
    """
    chosen = order(order_by)
    sizes = await _sizes(tx, blob_id, only, chosen, after, limit)
    fit = sizes[: count_within((item.size for item in sizes), max_bytes)]
    found = await tx.all(_AMONG, ids=[item.id for item in fit])
    # One that has changed its state since is not what was asked for any more.
    wanted = (execution for execution in found if not only.state or execution.state == only.state)
    return chosen.merge(wanted, limit), chosen.key(fit[-1]) if len(fit) < len(sizes) else ""


async def _sizes(tx: Transaction, blob_id: str, only: Filter, chosen: Order, after: str, limit: int) -> list[_Size]:
    """The first executions after `after`, and how large they are.

    Those of the blob are read state by state, so that one index serves every combination of filters but those with a
    session. A session's are read by its own index; the others of the session, which a limit bounds, are passed over.
    """
    column, queries = executions.c, []
    for state in (only.state,) if only.state or only.session_id else STATES:
        query = _SIZE.select().where(column.session_id == only.session_id if only.session_id else column.blob_id == blob_id)
        if only.definition_alias:
            query = query.where(column.definition_alias == only.definition_alias)
        if state:
            query = query.where(column.state == state)
        # A key is a stricter bound than the one on its side. Given both, SQLite may start at the looser one.
        if only.created_after and (chosen.descending or not after):
            query = query.where(column.create_time > only.created_after)
        if only.created_before and not (chosen.descending and after):
            query = query.where(column.create_time < only.created_before)
        queries.append(chosen.apply(query, after, limit))
    return chosen.merge(_SIZE.all(await tx.execute(union(queries))), limit)


_BUSY = Prepared(
    sa.select(executions.c.session_id).where(is_one_of(executions.c.session_id, "ids"), RUNNING).distinct(), Scalar(str)
)


async def find_busy(tx: Transaction, session_ids: Collection[str]) -> set[str]:
    """The sessions, among the given ones, in which an execution has not ended."""
    return {*await tx.all(_BUSY, ids=sorted(session_ids))}


_PRESENT = Prepared(sa.select(executions.c.id).where(is_one_of(executions.c.id, "ids"), THERE), Scalar(str))


async def present(tx: Transaction, execution_ids: Collection[str]) -> set[str]:
    """Those of some executions, by id, whose blobs were not deleted."""
    return {*await tx.all(_PRESENT, ids=sorted(execution_ids))}


_STOP = {"state": STOPPING, "last_message": executions.c.last_message + 1}


async def stop(tx: Transaction, execution_id: str) -> Execution | None:
    """Count a stop among the messages to an execution; None where it has ended, is stopping, or is gone."""
    found = await update(tx, executions.c.id == execution_id, executions.c.state != STOPPING, RUNNING, **_STOP)
    return found[0] if found else None


async def stop_some(tx: Transaction, session_id: str) -> list[Execution]:
    """Count a stop among the messages to the first of those executions of a session that neither ended nor are stopping."""
    own = sa.select(executions.c.id).where(executions.c.session_id == session_id, executions.c.state != STOPPING, RUNNING)
    return await update(tx, executions.c.id.in_(lock_rows(own.order_by(executions.c.id).limit(PART))), **_STOP)


async def count_message(tx: Transaction, execution_id: str) -> Execution | None:
    """Count a message to an execution; None where it has ended or is gone."""
    found = await update(tx, executions.c.id == execution_id, RUNNING, last_message=executions.c.last_message + 1)
    return found[0] if found else None


async def update(tx: Transaction, *conditions: sa.ColumnElement[bool] | sa.TextClause, **values: Any) -> list[Execution]:
    """Change executions; return them as they are then."""
    query = executions.update().where(*conditions).values(**values).returning(*EXECUTION.columns)
    return EXECUTION.all(await tx.execute(query))


_SOME_IDS = Prepared(
    lock_rows(
        sa.select(executions.c.id)
        .where(is_one_of(executions.c.session_id, "sessions"))
        .limit(sa.bindparam("most", type_=sa.BigInteger))
    ),
    Scalar(str),
)


async def lock_some(tx: Transaction, session_ids: Sequence[str], limit: int) -> list[str]:
    """Lock some executions of sessions, so that nobody sends them messages until the transaction ends; return their ids."""
    return await tx.all(_SOME_IDS, sessions=session_ids, most=limit)


async def collect(tx: Transaction, execution_ids: Sequence[str], rows: int) -> int:
    """Remove so many executions, about, and fewer with large results; return how many rows they count for."""
    length = sa.func.coalesce(sa.func.length(executions.c.result), 0)
    return await delete_large(tx, executions, executions.c.id.in_(execution_ids), rows, length)


assert {"completed", "failed", "stopped"} == TERMINAL, "RUNNING spells the terminal states out for the indexes"
