"""Runs of notes."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

import sqlalchemy as sa
from blobhub_server.db.engine import Transaction
from blobhub_server.db.schema import Id, IdQuery, Time, metadata

note_runs = sa.Table(
    "note_runs",
    metadata,
    sa.Column("id", Id(), primary_key=True),
    sa.Column("blob_id", Id(), sa.ForeignKey("blobs.id"), nullable=False),
    sa.Column("note", sa.String(40), nullable=False),
    sa.Column("execution_id", Id(), nullable=False),
    sa.Column("create_time", Time(), nullable=False),
    sa.Index("ix_note_runs_blob_id", "blob_id"),
)

TABLES = (note_runs,)
MIGRATIONS = Path(__file__).resolve().parent / "migrations"


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """That a note was run, and the execution that came of it."""

    id: str
    blob_id: str
    note: str
    execution_id: str
    create_time: datetime


async def insert(tx: Transaction, run: Run) -> None:
    """Keep a run."""
    await tx.execute(note_runs.insert(), asdict(run))


async def delete_all(tx: Transaction, blob_ids: IdQuery) -> None:
    """Remove the runs of blobs."""
    await tx.execute(note_runs.delete().where(note_runs.c.blob_id.in_(blob_ids)))
