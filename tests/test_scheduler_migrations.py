"""Migrations of schedulers: what is added to a table is filled from the rows that are there."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from blobhub_server.blobtypes.registry import BlobTypes
from blobhub_server.db.migrations import migrate
from databases import execute, select
from schedules import SCHEDULER

ROWS = """
INSERT INTO schedules (id, organization_id, blob_id, alias, enabled, pause_note, saved_revision_id, tzdata, create_time,
    update_time, etag) VALUES
    ('s', 'o', 'b', 'report', TRUE, '', 'r', '', 1, 1, 'e'),
    ('t', 'o', 'b', 'other', TRUE, '', 'r', '', 1, 1, 'e');
INSERT INTO schedule_versions (id, schedule_id, digest, document, actor_id, create_time) VALUES
    ('pins', 's', 'x', '{"description":"\\u0000","invocation_target":{"revision":"@2","revision_id":"p"}}', 'a', 1),
    ('follows', 's', 'y', '{"invocation_target":{"revision":"@default","revision_id":""}}', 'a', 1);
INSERT INTO firings (id, organization_id, blob_id, schedule_id, schedule_alias, kind, nominal_time, due_time, fire_time,
    tzdata, schedule_digest, actor_id, revision, session, definition, status, reason, message, sequence) VALUES
    ('f', 'o', 'b', 's', 'report', 'scheduled', 1, 1, 1, '', 'x', 'a', '@2', '', 'd', 'access_error', '', '', 1),
    ('g', 'o', 'b', 's', 'report', 'scheduled', 2, 2, 2, '', 'x', 'a', '@2', '', 'd', 'access_error', '', '', 2)
"""
"""Rows as the first migration has them."""


async def test_schedules_know_afterwards_how_many_firings_they_have_and_documents_what_they_pin(
    tmp_path: Path, empty_database_url: str
) -> None:
    chains = BlobTypes.load().chains()
    (chain,) = (chain for chain in chains if chain.name == SCHEDULER)
    shutil.copy(chain.folder / "0001_tables.py", tmp_path)
    await migrate(empty_database_url, [replace(chain, folder=tmp_path)])
    for statement in ROWS.split(";\n"):
        await execute(empty_database_url, statement)
    await migrate(empty_database_url, chains)
    counts = await select(
        empty_database_url, "SELECT alias, firing_count, forgotten_nominal_time FROM schedules ORDER BY alias"
    )
    assert [tuple(row) for row in counts] == [("other", 0, None), ("report", 2, None)]
    pins = await select(empty_database_url, "SELECT id, target_revision_id FROM schedule_versions ORDER BY id")
    assert [tuple(row) for row in pins] == [("follows", None), ("pins", "p")]
