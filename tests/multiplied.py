"""Very much of what is there once: rows copied behind the server's back, because nobody waits for a million calls."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from blobhub_server.db.schema import metadata
from blobhub_server.ids import Uuid7
from blobhub_server.platform import store as platform_store  # noqa: F401  declares tables
from blobhub_server.workflow import store as workflow_store  # noqa: F401  likewise
from databases import execute, select
from hoard import Row, put_rows

IN_BLOB = {
    "blobs": "id = '{blob}'",
    "revisions": "blob_id = '{blob}'",
    "entries": "blob_id = '{blob}'",
    "blob_events": "blob_id = '{blob}'",
    "sessions": "blob_id = '{blob}'",
    "executions": "blob_id = '{blob}'",
    "events": "session_id IN (SELECT id FROM sessions WHERE blob_id = '{blob}')",
}
"""What a blob has, by table, and how it is found."""

NAMED = {"blobs"}
"""Tables whose aliases differ in their copies."""


async def multiply_blob(url: str, blob_id: str, count: int) -> None:
    """Copy a blob, with what is in it, within its organization; the copies' aliases end with their numbers."""
    rows = {table: await _rows(url, table, where.format(blob=blob_id)) for table, where in IN_BLOB.items()}
    own = {row["id"] for table in rows.values() for row in table if "id" in row}
    made: dict[str, list[Row]] = {table: [] for table in rows}
    new_id = Uuid7()
    for number in range(count):
        ids = {id_: new_id() for id_ in own}
        for table, found in rows.items():
            made[table] += (_copy(row, ids, f"-{number}" if table in NAMED else "") for row in found)
    await put_rows(url, made)
    organization = rows["blobs"][0]["organization_id"]
    await execute(url, f"UPDATE organizations SET blob_count = blob_count + {count} WHERE id = '{organization}'")


async def lengthen_log(url: str, session_id: str, lines: int, *, rarely: int, rare_type: str) -> None:
    """Add lines to a session's log, copies of its last one, of which every `rarely`th is of another type."""
    (last,) = await _rows(url, "events", f"session_id = '{session_id}' ORDER BY session_sequence DESC LIMIT 1")
    numbers = itertools.count(last["session_sequence"] + 1)

    def added() -> Iterator[Row]:
        for number in itertools.islice(numbers, lines):
            own = {"session_sequence": number, "create_time": last["create_time"] + number, "execution_id": None}
            yield last | own | {"execution_sequence": 0, "type": rare_type if number % rarely == 0 else last["type"]}

    await put_rows(url, {"events": list(added())})
    end = last["session_sequence"] + lines
    await execute(url, f"UPDATE sessions SET last_session_sequence = {end} WHERE id = '{session_id}'")


async def _rows(url: str, table: str, where: str) -> list[Row]:
    names = [column.name for column in metadata.tables[table].columns]
    found = await select(url, f"SELECT {', '.join(names)} FROM {table} WHERE {where}")
    return [dict(zip(names, row, strict=True)) for row in found]


def _copy(row: Row, ids: dict[str, str], suffix: str) -> Row:
    """A row with other ids, and with no cause of its own, because a cause starts one execution."""
    copied: dict[str, Any] = {
        name: ids.get(value, value) if isinstance(value, str) else value for name, value in row.items()
    }
    if suffix:
        copied["alias"] += suffix
    return copied | dict.fromkeys(copied.keys() & {"cause_kind", "cause_id"})
