"""Executions: rows that say what was asked, and project what the log says happened."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from blobhub_server.blobtypes.values import Dependents
from blobhub_server.db.count import count_and_name
from blobhub_server.db.engine import Transaction
from blobhub_server.db.prepared import Prepared, among, upsert
from blobhub_server.db.records import Mapper, Pair, Part, Scalar
from blobhub_server.db.schema import Choice, Duration, Id, Json, Selected, Time, metadata
from blobhub_server.workflow.interpreter import TERMINAL
from blobhub_server.workflow.rules.execution import Cause, CauseKind, Execution
from blobhub_server.workflow.store.session import of_blobs, servers, sessions

RUNNING = sa.text("state NOT IN ('completed', 'failed', 'stopped')")
_CAUSED = sa.text("cause_id IS NOT NULL")

executions = sa.Table(
    "executions",
    metadata,
    sa.Column("id", Id(), primary_key=True),
    sa.Column("session_id", Id(), sa.ForeignKey("sessions.id"), nullable=False),
    sa.Column("blob_id", Id(), nullable=False),
    sa.Column("revision_id", Id(), nullable=False),
    sa.Column("definition_id", Id(), nullable=False),
    sa.Column("definition_alias", sa.String(42), nullable=False),
    sa.Column("definition_digest", sa.String(64), nullable=False),
    sa.Column("cause_kind", Choice(CauseKind, sa.String(16))),
    sa.Column("cause_id", sa.String(160)),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("step_limit", sa.Integer, nullable=False),
    sa.Column("timeout_us", Duration(), key="timeout"),
    sa.Column("result", sa.Text),
    sa.Column("failure", Json()),
    sa.Column("last_sequence", sa.BigInteger, nullable=False),
    sa.Column("create_time", Time(), nullable=False),
    sa.Column("end_time", Time()),
    sa.Index("ix_executions_session_id", "session_id", "id"),
    sa.Index("ix_executions_revision_id", "revision_id", sqlite_where=RUNNING, postgresql_where=RUNNING),
    sa.Index("ix_executions_running", "session_id", "id", sqlite_where=RUNNING, postgresql_where=RUNNING),
    sa.Index("uq_executions_cause", "cause_kind", "cause_id", unique=True, sqlite_where=_CAUSED, postgresql_where=_CAUSED),
)

_CAUSE = (executions.c.cause_kind, executions.c.cause_id)


def _cause_of(row: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"cause": None if row["cause_id"] is None else Cause(kind=row["cause_kind"], id=row["cause_id"])}


def _cause_columns(execution: Execution) -> Mapping[str, Any]:
    cause = execution.cause
    return {"cause_kind": None, "cause_id": None} if cause is None else {"cause_kind": cause.kind, "cause_id": cause.id}


def _result_of(row: Mapping[str, Any]) -> Mapping[str, Any]:
    text = row["result"]
    return {"has_result": text is not None, "result": None if text is None else json.loads(text)}


def _result_column(execution: Execution) -> Mapping[str, Any]:
    return {"result": json.dumps(execution.result) if execution.has_result else None}


_EXECUTION = Mapper(
    Execution,
    executions,
    parts=[
        Part(("cause",), ("cause_kind", "cause_id"), _cause_of, _cause_columns),
        Part(("has_result", "result"), ("result",), _result_of, _result_column),
    ],
)
_SELECT = _EXECUTION.select()
_ID = executions.c.id == sa.bindparam("execution")

_INSERT = Prepared(executions.insert())
_INSERT_FIRST = Prepared(
    upsert(executions, keys=_CAUSE, changed=(), where=_CAUSED, returning=[executions.c.id]), Scalar(str)
)


async def insert(tx: Transaction, new: Sequence[Execution]) -> Collection[str]:
    """Store new executions, except where the cause has one already; return the ids of those that were stored.

    Where another transaction is storing an execution of the same cause, this waits for its end.
    """
    free = [execution for execution in new if execution.cause is None]
    caused = [execution for execution in new if execution.cause is not None]
    await tx.run_each(_INSERT, [_EXECUTION.row(execution) for execution in free])
    stored = await tx.run_each(_INSERT_FIRST, [_EXECUTION.row(execution) for execution in caused])
    return {execution.id for execution in free} | set(stored)


# Kind by kind: given pairs, SQLite would walk the whole index as soon as there are two of them.
_CAUSED_BY = Prepared(
    _SELECT.where(executions.c.cause_kind == sa.bindparam("kind"), among(executions.c.cause_id, "ids")),
    _EXECUTION,
)


async def caused_by(tx: Transaction, causes: Collection[Cause]) -> dict[Cause, Execution]:
    """The executions that were started by some causes."""
    found: dict[Cause, Execution] = {}
    for kind in {cause.kind for cause in causes}:
        ids = [cause.id for cause in causes if cause.kind is kind]
        records = await tx.all(_CAUSED_BY, kind=kind, ids=ids)
        found |= {record.cause: record for record in records if record.cause is not None}
    return found


_PROJECTED = ("state", "result", "failure", "last_sequence", "end_time")
_PROJECT = Prepared(executions.update().where(_ID).values({name: sa.bindparam(name) for name in _PROJECTED}))


async def project(tx: Transaction, changed: Sequence[Execution]) -> None:
    """Bring rows up to what their logs say. The caller has checked the fence of their sessions."""
    await tx.run_each(_PROJECT, [{"execution": item.id, **_EXECUTION.row(item)} for item in changed])


_GET = Prepared(_SELECT.where(_ID), _EXECUTION)


async def get(tx: Transaction, execution_id: str) -> Execution | None:
    """One execution."""
    return await tx.first(_GET, execution=execution_id)


_LOCATE = Prepared(
    _EXECUTION.select(sessions.c.org_id).join(sessions, sessions.c.id == executions.c.session_id).where(_ID),
    Pair(_EXECUTION, Scalar(str, "org_id")),
)


async def locate(tx: Transaction, execution_id: str) -> tuple[Execution, str] | None:
    """An execution and the organization it belongs to."""
    return await tx.first(_LOCATE, execution=execution_id)


async def page(tx: Transaction, session_id: str, *, state: str | None, after: str, limit: int) -> list[Execution]:
    """A session's executions by id, those after `after`."""
    query = _SELECT.where(executions.c.session_id == session_id, executions.c.id > after)
    if state:
        query = query.where(executions.c.state == state)
    if state and state not in TERMINAL:
        query = query.where(RUNNING)
    return _EXECUTION.all(await tx.execute(query.order_by(executions.c.id).limit(limit)))


_RUNNING = Prepared(
    _SELECT.where(executions.c.session_id == sa.bindparam("session"), RUNNING).order_by(executions.c.id), _EXECUTION
)


async def running(tx: Transaction, session_id: str) -> list[Execution]:
    """A session's executions that have not ended."""
    return await tx.all(_RUNNING, session=session_id)


async def running_on(tx: Transaction, server: str) -> set[str]:
    """The executions that have not ended in the sessions of a server, by id."""
    owned = sa.select(sessions.c.id).where(sessions.c.owner == server)
    return set((await tx.execute(sa.select(executions.c.id).where(executions.c.session_id.in_(owned), RUNNING))).scalars())


async def on_revision(tx: Transaction, revision_id: str) -> Dependents:
    """The executions that run definitions of a revision and have not ended."""
    held = (executions.c.revision_id == revision_id, RUNNING)
    return Dependents("running executions", *await count_and_name(tx, executions.c.id, *held))


async def in_blob(tx: Transaction, blob_id: str) -> Dependents:
    """The executions of a blob that have not ended."""
    own = sa.select(sessions.c.id).where(sessions.c.blob_id == blob_id)
    held = (executions.c.session_id.in_(own), RUNNING)
    return Dependents("running executions", *await count_and_name(tx, executions.c.id, *held))


async def delete_all(tx: Transaction, blob_ids: Selected) -> None:
    """Remove the executions of blobs."""
    await tx.execute(executions.delete().where(executions.c.session_id.in_(of_blobs(blob_ids))))


async def orphans(tx: Transaction, now: Any) -> list[str]:
    """Sessions with work to do (executions that have not ended, or a closing to finish) that no living server owns."""
    alive = sa.select(servers.c.id).where(servers.c.lease_until > now)
    unowned = sa.or_(sessions.c.owner.is_(None), sessions.c.owner.not_in(alive))
    busy = sa.select(executions.c.session_id).where(RUNNING)
    query = sa.select(sessions.c.id).where(unowned, sa.or_(sessions.c.state == "closing", sessions.c.id.in_(busy)))
    return list((await tx.execute(query)).scalars())


assert {"completed", "failed", "stopped"} == TERMINAL, "RUNNING spells the terminal states out for the indexes"
