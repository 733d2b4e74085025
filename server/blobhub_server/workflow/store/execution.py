"""Executions: rows that say what was asked, and project what the log says happened."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import sqlalchemy as sa

from blobhub_server.blobtypes.values import Dependents
from blobhub_server.db.engine import Transaction, locked
from blobhub_server.db.schema import Id, Selected, Time, metadata
from blobhub_server.platform.store.blob import blobs, only
from blobhub_server.platform.store.dependents import dependents
from blobhub_server.workflow.interpreter import TERMINAL
from blobhub_server.workflow.rules.execution import Cause, CauseKind, Execution
from blobhub_server.workflow.rules.session import Session
from blobhub_server.workflow.store.server import living
from blobhub_server.workflow.store.session import of_blobs, sessions

STOPPING = "stopping"
RUNNING = sa.text("state NOT IN ('completed', 'failed', 'stopped')")
_CAUSED = sa.text("cause_id IS NOT NULL")

executions = sa.Table(
    "executions",
    metadata,
    sa.Column("id", Id(), primary_key=True),
    sa.Column("session_id", Id(), sa.ForeignKey("sessions.id"), nullable=False),
    sa.Column("blob_id", Id(), nullable=False),
    sa.Column("revision_id", Id(), nullable=False),
    sa.Column("definition_blob_id", Id(), nullable=False),
    sa.Column("definition_id", Id(), nullable=False),
    sa.Column("definition_alias", sa.String(42), nullable=False),
    sa.Column("definition_digest", sa.String(64), nullable=False),
    sa.Column("cause_kind", sa.String(16)),
    sa.Column("cause_id", sa.String(160)),
    sa.Column("owner", Id()),
    sa.Column("fence", sa.BigInteger, nullable=False),
    sa.Column("last_message", sa.BigInteger, nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("step_limit", sa.Integer, nullable=False),
    sa.Column("timeout_us", sa.BigInteger),
    sa.Column("result", sa.Text),
    sa.Column("failure", sa.Text),
    sa.Column("last_sequence", sa.BigInteger, nullable=False),
    sa.Column("create_time", Time(), nullable=False),
    sa.Column("end_time", Time()),
    sa.Index("ix_executions_session_id", "session_id", "id"),
    sa.Index("ix_executions_revision_id", "revision_id", sqlite_where=RUNNING, postgresql_where=RUNNING),
    sa.Index("ix_executions_definition_blob_id", "definition_blob_id", sqlite_where=RUNNING, postgresql_where=RUNNING),
    sa.Index("ix_executions_running", "session_id", "id", sqlite_where=RUNNING, postgresql_where=RUNNING),
    sa.Index("ix_executions_owner", "owner", "id", sqlite_where=RUNNING, postgresql_where=RUNNING),
    sa.Index("uq_executions_cause", "cause_kind", "cause_id", unique=True, sqlite_where=_CAUSED, postgresql_where=_CAUSED),
)

_CAUSE = (executions.c.cause_kind, executions.c.cause_id)


def _row(execution: Execution) -> dict[str, Any]:
    return {
        "id": execution.id,
        "session_id": execution.session_id,
        "blob_id": execution.blob_id,
        "revision_id": execution.revision_id,
        "definition_blob_id": execution.definition_blob_id,
        "definition_id": execution.definition_id,
        "definition_alias": execution.definition_alias,
        "definition_digest": execution.definition_digest,
        "cause_kind": execution.cause and execution.cause.kind.value,
        "cause_id": execution.cause and execution.cause.id,
        "owner": execution.owner,
        "fence": execution.fence,
        "last_message": execution.last_message,
        "step_limit": execution.step_limit,
        "timeout_us": None if execution.timeout is None else execution.timeout // timedelta(microseconds=1),
        "create_time": execution.create_time,
    } | _projection(execution)


def _projection(execution: Execution) -> dict[str, Any]:
    return {
        "state": execution.state,
        "result": json.dumps(execution.result) if execution.has_result else None,
        "failure": None if execution.failure is None else json.dumps(execution.failure),
        "last_sequence": execution.last_sequence,
        "end_time": execution.end_time,
    }


def _record(row: Mapping[Any, Any]) -> Execution:
    columns = dict(row)
    timeout, result, failure = columns.pop("timeout_us"), columns.pop("result"), columns.pop("failure")
    kind, cause_id = columns.pop("cause_kind"), columns.pop("cause_id")
    return Execution(
        **columns,
        cause=None if cause_id is None else Cause(CauseKind(kind), cause_id),
        timeout=None if timeout is None else timedelta(microseconds=timeout),
        has_result=result is not None,
        result=None if result is None else json.loads(result),
        failure=None if failure is None else json.loads(failure),
    )


async def insert(tx: Transaction, new: Sequence[Execution]) -> Collection[str]:
    """Store new executions, except where the cause has one already; return the ids of those that were stored.

    Where another transaction is storing an execution of the same cause, this waits for its end.
    """
    free = [execution for execution in new if execution.cause is None]
    if free:
        await tx.execute(executions.insert(), [_row(execution) for execution in free])
    caused = [execution for execution in new if execution.cause is not None]
    if not caused:
        return {execution.id for execution in free}
    statement = tx.upsert(executions, keys=_CAUSE, changed=(), where=_CAUSED)
    stored = await tx.execute(statement.returning(executions.c.id), [_row(execution) for execution in caused])
    return {execution.id for execution in free} | set(stored.scalars())


async def caused_by(tx: Transaction, causes: Collection[Cause]) -> dict[Cause, Execution]:
    """The executions that were started by some causes."""
    found: dict[Cause, Execution] = {}
    # Kind by kind: given pairs, SQLite would walk the whole index as soon as there are two of them.
    for kind in {cause.kind for cause in causes}:
        ids = [cause.id for cause in causes if cause.kind is kind]
        query = executions.select().where(executions.c.cause_kind == kind.value, executions.c.cause_id.in_(ids), _CAUSED)
        records = [_record(row) for row in (await tx.execute(query)).mappings()]
        found |= {record.cause: record for record in records if record.cause is not None}
    return found


@dataclass(frozen=True, slots=True)
class Standing:
    """An execution's fence and the number of the last message to it, and its session."""

    fence: int
    last_message: int
    session: Session


_LOCK = locked(
    sa.select(executions.c.id, executions.c.fence, executions.c.last_message, *sessions.c)
    .join(sessions, sessions.c.id == executions.c.session_id)
    .where(executions.c.id.in_(sa.bindparam("execution_ids", expanding=True)))
    .order_by(sessions.c.id, executions.c.id)
)


async def lock(tx: Transaction, execution_ids: Collection[str]) -> dict[str, Standing]:
    """How executions stand, by id. Those that are gone are left out.

    Until the transaction ends nobody else writes to the logs of their sessions, no server takes the executions over, and
    nobody sends them a message. One statement locks both: the rows of a session before those of executions in it.
    """
    rows = await tx.execute(_LOCK, {"execution_ids": sorted(execution_ids)})
    return {row[0]: Standing(row[1], row[2], Session(*row[3:])) for row in rows}


_PROJECT = (
    executions.update()
    .where(executions.c.id == sa.bindparam("execution_id"), executions.c.fence == sa.bindparam("held_fence"))
    .values({name: sa.bindparam(name) for name in ("state", "result", "failure", "last_sequence", "end_time")})
)


async def project(tx: Transaction, changed: Sequence[Execution]) -> None:
    """Bring rows up to what their logs say.

    The caller has locked them and compared their fences; the fence in the WHERE keeps out one who forgot to.
    """
    rows = [{"execution_id": item.id, "held_fence": item.fence} | _projection(item) for item in changed]
    await tx.execute(_PROJECT, rows)


async def get(tx: Transaction, execution_id: str) -> Execution | None:
    """One execution."""
    row = (await tx.execute(executions.select().where(executions.c.id == execution_id))).mappings().first()
    return _record(row) if row else None


_LOCATE = (
    sa.select(executions, blobs.c.org_id)
    .join(blobs, blobs.c.id == executions.c.blob_id)
    .where(executions.c.id == sa.bindparam("execution_id"))
)


async def locate(tx: Transaction, execution_id: str) -> tuple[Execution, str] | None:
    """An execution and the organization it belongs to."""
    row = (await tx.execute(_LOCATE, {"execution_id": execution_id})).mappings().first()
    if not row:
        return None
    columns = dict(row)
    org_id = columns.pop("org_id")
    return _record(columns), org_id


async def page(tx: Transaction, session_id: str, *, state: str | None, after: str, limit: int) -> list[Execution]:
    """A session's executions by id, those after `after`."""
    query = executions.select().where(executions.c.session_id == session_id, executions.c.id > after)
    if state:
        query = query.where(executions.c.state == state)
    if state and state not in TERMINAL:
        query = query.where(RUNNING)
    rows = (await tx.execute(query.order_by(executions.c.id).limit(limit))).mappings()
    return [_record(row) for row in rows]


async def busy(tx: Transaction, session_ids: Collection[str]) -> set[str]:
    """Those of some sessions in which an execution has not ended."""
    query = sa.select(executions.c.session_id).where(executions.c.session_id.in_(session_ids), RUNNING).distinct()
    return set((await tx.execute(query)).scalars())


async def running_on(tx: Transaction, server_id: str) -> set[str]:
    """The executions that a server owns and that have not ended, by id."""
    return set((await tx.execute(sa.select(executions.c.id).where(executions.c.owner == server_id, RUNNING))).scalars())


async def claim(tx: Transaction, server_id: str, limit: int) -> list[Execution]:
    """Take over executions that have not ended and that no living server owns, under a fence that is one higher.

    What other servers are taking over, or writing to, at this moment is left to them.
    """
    unowned = sa.or_(executions.c.owner.is_(None), executions.c.owner.not_in(living()))
    orphans = sa.select(executions.c.id).where(RUNNING, unowned).order_by(executions.c.id).limit(limit)
    orphans = orphans.with_for_update(key_share=True, skip_locked=True)
    return await _update(tx, executions.c.id.in_(orphans), owner=server_id, fence=executions.c.fence + 1)


_STOP = {"state": STOPPING, "last_message": executions.c.last_message + 1}


async def stop(tx: Transaction, execution_id: str) -> Execution | None:
    """Count a stop among the messages to an execution; None where it has ended, is stopping, or is gone."""
    found = await _update(tx, executions.c.id == execution_id, executions.c.state != STOPPING, RUNNING, **_STOP)
    return found[0] if found else None


async def stop_all(tx: Transaction, session_id: str) -> list[Execution]:
    """Count a stop among the messages to those executions of a session that have not ended and are not stopping."""
    own = sa.select(executions.c.id).where(executions.c.session_id == session_id, executions.c.state != STOPPING, RUNNING)
    return await _update(tx, executions.c.id.in_(locked(own.order_by(executions.c.id))), **_STOP)


async def count_message(tx: Transaction, execution_id: str) -> Execution | None:
    """Count a message to an execution; None where it has ended or is gone."""
    found = await _update(tx, executions.c.id == execution_id, RUNNING, last_message=executions.c.last_message + 1)
    return found[0] if found else None


async def _update(tx: Transaction, *conditions: sa.ColumnElement[bool] | sa.TextClause, **values: Any) -> list[Execution]:
    """Change executions; return them as they are then."""
    query = executions.update().where(*conditions).values(**values).returning(executions)
    return [_record(row) for row in (await tx.execute(query)).mappings()]


async def lock_all(tx: Transaction, blob_ids: Selected) -> None:
    """Let nobody send messages to executions of these blobs until the transaction ends; whoever does so finishes first."""
    running = sa.select(executions.c.id).where(executions.c.session_id.in_(of_blobs(blob_ids)), RUNNING)
    await tx.execute(locked(running.order_by(executions.c.id)))


async def on_revision(tx: Transaction, revision_id: str) -> Dependents:
    """The executions that run definitions of a revision and have not ended."""
    return await dependents(tx, "running executions", executions.c.id, executions.c.revision_id == revision_id, RUNNING)


async def in_blob(tx: Transaction, blob_id: str) -> Dependents:
    """The executions that have not ended in the sessions of a blob, or by definitions of it in those of another."""
    own = sa.or_(executions.c.session_id.in_(of_blobs(only(blob_id))), executions.c.definition_blob_id == blob_id)
    return await dependents(tx, "running executions", executions.c.id, own, RUNNING)


async def delete_all(tx: Transaction, blob_ids: Selected) -> None:
    """Remove the executions of blobs."""
    await tx.execute(executions.delete().where(executions.c.session_id.in_(of_blobs(blob_ids))))


assert {"completed", "failed", "stopped"} == TERMINAL, "RUNNING spells the terminal states out for the indexes"
