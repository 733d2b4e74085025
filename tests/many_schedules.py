"""Very many schedules: rows copied behind the server's back, because nobody waits for a million calls."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from blobhub_server.platform.store.content import entries
from blobhub_server.scheduler.store.schedule import schedules
from blobhub_server.scheduler.store.version import schedule_versions
from databases import execute

PART = 100_000
"""How many are made by one statement, so that no transaction is larger than a log that is kept short should be."""


async def copy_schedule(
    url: str, schedule_id: str, count: int, *, first_due: int, step: int = 0, series: int = 0, **values: Any
) -> None:
    """Make copies of a schedule in its draft, each with a document of its own, due one after the other.

    `first_due` is when the first one is, and `step` how much later each other, in microseconds; `values` are those of other
    columns of `schedules`. Whoever makes copies twice in a database counts the `series`.
    """
    number = "substr(CAST(1000000000000 + n AS TEXT), 2)"
    own, document, entry = (f"'{kind:08x}-{series:04x}-7000-8000-' || {number}" for kind in range(3))
    alias, due = f"'copy-{series}-' || n", f"{first_due} + CAST(n AS BIGINT) * {step}"
    written = {name: f"'{value}'" if isinstance(value, str) else value for name, value in values.items()}
    tables: list[tuple[sa.Table, str, dict[str, Any]]] = [
        (
            schedules,
            f"id = '{schedule_id}'",
            {"id": own, "alias": alias, "version_id": document, "next_nominal_time": due, "next_due_time": due} | written,
        ),
        (
            schedule_versions,
            f"id = (SELECT version_id FROM schedules WHERE id = '{schedule_id}')",
            {"id": document, "schedule_id": own},
        ),
        (
            entries,
            f"(revision_id, name) = (SELECT saved_revision_id, alias FROM schedules WHERE id = '{schedule_id}')",
            {"id": entry, "name": alias},
        ),
    ]
    for begin in range(0, count, PART):
        end = min(begin + PART, count)
        numbers = f"WITH RECURSIVE numbers(n) AS (SELECT {begin} UNION ALL SELECT n + 1 FROM numbers WHERE n < {end - 1})"
        for table, original, copied in tables:
            names = [column.name for column in table.columns]
            chosen = ", ".join(str(copied.get(name, f"original.{name}")) for name in names)
            source = f"(SELECT * FROM {table.name} WHERE {original}) AS original, numbers"
            await execute(url, f"INSERT INTO {table.name} ({', '.join(names)}) {numbers} SELECT {chosen} FROM {source}")
    if url.startswith("postgresql"):
        await execute(url, "ANALYZE")  # as the server does by itself, a minute later
