"""Runs of notes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import sqlalchemy as sa
from blobhub_server.blobtypes.capabilities import InvocationResult
from blobhub_server.blobtypes.values import Dependents
from blobhub_server.db.count import count_and_name
from blobhub_server.db.engine import Transaction
from blobhub_server.db.parts import delete_some
from blobhub_server.db.prepared import Prepared
from blobhub_server.db.records import Mapper
from blobhub_server.db.schema import Id, Time, metadata

note_runs = sa.Table(
    "note_runs",
    metadata,
    sa.Column("id", Id(), primary_key=True),
    sa.Column("organization_id", Id(), nullable=False),
    sa.Column("blob_id", Id(), nullable=False),
    sa.Column("revision_id", Id()),
    sa.Column("note", sa.String(40), nullable=False),
    sa.Column("execution_id", Id(), nullable=False),
    sa.Column("create_time", Time(), nullable=False),
    sa.Column("outcome", sa.String(16), nullable=False),
    sa.Column("superseded", sa.Boolean, nullable=False),
    sa.Index("ix_note_runs_blob_id", "blob_id"),
    sa.Index("ix_note_runs_revision_id", "revision_id"),
)

TABLES = (note_runs,)
KIND = "runs of notes"
MIGRATIONS = Path(__file__).resolve().parent / "migrations"


@dataclass(frozen=True, slots=True)
class Run:
    """That a note was run, and the execution that came of it. `revision_id` is None where it was not kept.

    `outcome` is the state that the execution has ended in, "" before. `superseded` says that the default revision of the
    blob has moved to another revision since.
    """

    id: str
    organization_id: str
    blob_id: str
    revision_id: str | None
    note: str
    execution_id: str
    create_time: datetime
    outcome: str
    superseded: bool


_RUN = Mapper(Run, note_runs)
_INSERT = Prepared(note_runs.insert())
_END = Prepared(note_runs.update().where(note_runs.c.id == sa.bindparam("run")).values(outcome=sa.bindparam("outcome")))
_SUPERSEDE = Prepared(
    note_runs.update()
    .where(note_runs.c.blob_id == sa.bindparam("blob"))
    .values(superseded=note_runs.c.revision_id != sa.bindparam("revision"))
)
_GET = Prepared(_RUN.select().where(note_runs.c.id == sa.bindparam("run")), _RUN)


async def insert(tx: Transaction, run: Run) -> None:
    """Keep a run."""
    await tx.run(_INSERT, **_RUN.row(run))


async def get(tx: Transaction, run_id: str) -> Run | None:
    """One run."""
    return await tx.first(_GET, run=run_id)


async def end(tx: Transaction, ended: Sequence[InvocationResult]) -> None:
    """Keep what became of executions. Those that no note was run for are passed over."""
    await tx.run_each(_END, [{"run": item.cause, "outcome": item.state} for item in ended])


async def supersede(tx: Transaction, blob_id: str, revision_id: str) -> None:
    """Mark the runs of all revisions of a blob but its default one."""
    await tx.run(_SUPERSEDE, blob=blob_id, revision=revision_id)


async def dependents_on_revision(tx: Transaction, revision_id: str) -> list[Dependents]:
    """The runs of a revision's notes."""
    return await _dependents(tx, note_runs.c.revision_id == revision_id)


async def dependents_in_blob(tx: Transaction, blob_id: str) -> list[Dependents]:
    """The runs of a blob's notes."""
    return await _dependents(tx, note_runs.c.blob_id == blob_id)


async def _dependents(tx: Transaction, where: sa.ColumnElement[bool]) -> list[Dependents]:
    count, ids = await count_and_name(tx, note_runs.c.id, where)
    return [Dependents(kind=KIND, count=count, ids=ids)]


async def collect(tx: Transaction, blob_ids: Sequence[str], rows: int) -> int:
    """Remove so many runs of deleted blobs at most; return how many were removed."""
    return await delete_some(tx, note_runs, note_runs.c.blob_id.in_(blob_ids), rows)
