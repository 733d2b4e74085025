"""A database with very much in it: 20,000 blobs, 100,000 metadata records, thousands of everything else that is listed.

The rows are put there behind the server's back, since nobody waits for 200,000 calls.
"""

from __future__ import annotations

import random
import sqlite3
from collections import defaultdict
from collections.abc import Mapping
from contextlib import closing
from typing import Any

import asyncpg
import sqlalchemy as sa
from blobhub.v1 import event_pb2
from blobhub_server.db.schema import metadata
from blobhub_server.ids import Uuid7

BLOBS, MANY = 20_000, 2_000
TARGETS, RECORDS = 400, 250
TYPES = ("blobhub.compute.workflow", "blobhub.compute.scheduler", "blobhub.model.onnx")
RARELY = (90, 8, 2)
METHODS = tuple(f"blobhub.v1.BlobService/{name}" for name in ("CreateBlob", "GetBlob", "UpdateBlob", "DeleteBlob"))
EVENT_TYPES = ("processor.exited", "processor.entered")
REFUSED = "PERMISSION_DENIED"
DIGEST = "0" * 64
BEGIN = 1_700_000_000
"""Seconds since 1970: when the first thing was made."""

Row = dict[str, Any]


class Hoard:
    """What is in the database, as rows by table, in the order they were made.

    Three users are there already, and newer: the administrator, a member of many organizations, and a guest, who has a role
    on a hundred private blobs and on no organization.
    """

    def __init__(self, administrator: str, member: str, guest: str) -> None:
        self.newer = [{"id": id_} for id_ in (administrator, member, guest)]
        self.rows: dict[str, list[Row]] = defaultdict(list)
        self._random = random.Random(7443)
        self._ids = Uuid7(milliseconds=lambda: BEGIN * 1000, entropy=self._random.randbytes)
        self._made = 0
        self.organization, *others = [self._organization() for _ in range(BLOBS)]
        self.joined = self._random.sample(others, MANY)
        self.organization["blob_count"] = BLOBS
        self.blobs = [self._blob() for _ in range(BLOBS)]
        self.blob = self.blobs[0]
        self.revision, *_ = [self._revision(self.blob) for _ in range(MANY)]
        self._metadata()
        self._members(member, guest)
        self._keys_and_credentials()
        self._sessions()
        self._events()
        self._audit()

    def __getitem__(self, table: str) -> list[Row]:
        return self.rows[table]

    def _add(self, table: str, **values: Any) -> Row:
        """A row made a second after the one before, and changed some time later, several in the same second."""
        self._made += 1
        created = (BEGIN + self._made) * 1_000_000
        changed = created + self._random.randrange(5_000) * 1_000_000
        row = {"id": self._ids(), "create_time": created, "update_time": changed, "etag": self._ids()} | values
        self.rows[table].append(row)
        return row

    def _alias(self) -> str:
        """Of characters that languages order otherwise than code points do."""
        middle = self._random.choices("0123456789_-abcdefghijklmnopqrstuvwxyz", k=12)
        return f"{self._random.choice('abcdef')}{''.join(middle)}0"

    def _visibility(self) -> str:
        return self._random.choice(("public", "private"))

    def _organization(self) -> Row:
        visibility = self._visibility() if self.rows["organizations"] else "public"
        return self._add("organizations", alias=self._alias(), description="", visibility=visibility, blob_count=0)

    def _blob(self) -> Row:
        first = not self.rows["blobs"]
        return self._add(
            "blobs",
            organization_id=self.organization["id"],
            alias=self._alias(),
            type=TYPES[0] if first else self._random.choices(TYPES, RARELY)[0],
            visibility="public" if first else self._visibility(),
            description="",
            default_revision_id="",
            last_sequence=0,
            bytes=0,
        )

    def _revision(self, blob: Row) -> Row:
        plain = {
            "phase": self._random.choice(("draft", "commit")),
            "comment": "",
            "label": "",
            "digest": DIGEST,
            "entries": 0,
        }
        made = self._add("revisions", blob_id=blob["id"], **plain)
        blob["default_revision_id"] = blob["default_revision_id"] or made["id"]
        return made

    def _metadata(self) -> None:
        """On blobs, and on a revision of each; every other key of a revision is one of its blob too."""
        for blob in self.blobs[: TARGETS // 2]:
            revision = self.revision if blob is self.blob else self._revision(blob)
            for target, step in ((blob, 2), (revision, 1)):
                for i in range(RECORDS):
                    key = f"k{i * step:03}"
                    self._add(
                        "metadata_records",
                        parent_id=target["id"],
                        blob_id=blob["id"],
                        key=key,
                        value=f'"{key}"',
                        description="",
                    )

    def _members(self, member: str, guest: str) -> None:
        place = {"organization_id": self.organization["id"], "blob_id": None}
        here = {"organization_id": self.organization["id"], "blob_id": self.blob["id"]}
        for i in range(BLOBS):
            user = self._add("users", name=self._alias(), display_name="", administrator=False, disabled=False)
            if i % 10 == 0:
                self._member(user["id"], **place)
                self._member(user["id"], **here)
        for organization in self.joined:
            self._member(member, organization_id=organization["id"], blob_id=None)
        private = [blob for blob in self.blobs if blob["visibility"] == "private"]
        self.shared = self._random.sample(private, 100)
        for blob in self.shared:
            self._member(guest, organization_id=blob["organization_id"], blob_id=blob["id"])

    def _member(self, user_id: str, *, organization_id: str, blob_id: str | None) -> None:
        self._add(
            "members",
            user_id=user_id,
            resource_id=blob_id or organization_id,
            organization_id=organization_id,
            blob_id=blob_id,
            role=self._random.choice((1, 2)),
        )

    def _keys_and_credentials(self) -> None:
        """Of the organization, of the blob, and of a user."""
        owners = (
            {"organization_id": self.organization["id"]},
            {"organization_id": self.organization["id"], "blob_id": self.blob["id"]},
            {"user_id": self["users"][0]["id"]},
        )
        for _ in range(MANY):
            for owner in owners:
                number = f"{self._made:012}"
                plain = {"secret_hash": b"", "role": 1, "description": ""}
                revoked = self._random.choice((None, BEGIN * 1_000_000))
                self._add("api_keys", public_id=number, revoke_time=revoked, queues="[]", **plain, **owner)
                sealed = dict.fromkeys(("key_nonce", "wrapped_key", "nonce", "ciphertext"), b"")
                about = {
                    "alias": self._alias(),
                    "type": self._random.choice(("http.bearer", "http.basic")),
                    "description": "",
                    "master_key_id": "",
                }
                self._add("credentials", parent_id=[*owner.values()][-1], **owner, **about, **sealed)

    def _sessions(self) -> None:
        """Of the blob; what runs and what is kept in one; and the definitions of the revision."""
        bound = {"blob_id": self.blob["id"], "revision_id": self.revision["id"]}
        for i in range(MANY):
            state = "open" if i % 2 == 0 else "closed"
            alias = "daily" if state == "closed" else None
            plain = {"description": "", "last_session_sequence": 0, "last_event_time": 0, "executions": 0}
            self._add("sessions", state=state, alias=alias, **bound, **plain)
        inside = {"session_id": self["sessions"][0]["id"]}
        definition = {"definition_id": "", "definition_alias": "workflow", "definition_digest": DIGEST, "step_limit": 1}
        definition |= {"definition_blob_id": self.blob["id"]}
        for i in range(MANY):
            state = "stopped" if i % 2 else "completed"
            numbers = {"fence": 1, "last_execution_sequence": 0, "last_message": 0, "wake_time": 0, "rest_time": 0}
            alias = self._random.choice(("workflow", "other"))
            self._add("executions", state=state, **numbers, **inside, **bound, **definition | {"definition_alias": alias})
            self._add("session_objects", alias=self._alias(), type="text", value='""', size=2, **inside)
            self._add("entries", **bound, name=self._alias(), digest=DIGEST, size=0)

    def _events(self) -> None:
        """Of the first session, half of them of its first execution."""
        session, execution = self["sessions"][0], self["executions"][0]
        for i in range(MANY):
            session["last_session_sequence"] += 1
            execution["last_execution_sequence"] += i % 2
            number = session["last_session_sequence"]
            self._add(
                "events",
                session_id=session["id"],
                session_sequence=number,
                execution_id=execution["id"] if i % 2 else None,
                execution_sequence=execution["last_execution_sequence"] if i % 2 else 0,
                type=EVENT_TYPES[i // 2 % 5 > 0],
                event=event_pb2.Event(session_sequence=number).SerializeToString(),
            )

    def _audit(self) -> None:
        about = {"resource_type": "blob", "resource": "", "request_id": "", "reason": ""}
        for i in range(BLOBS):
            blob = self.blob if i % 2 else self.blobs[i]
            self._add(
                "audit_entries",
                sequence=1_000 + i,
                method=self._random.choice(METHODS),
                user_id=self._random.choice(self["users"][:3])["id"],
                organization_id=self.organization["id"],
                blob_id=blob["id"],
                code=self._random.choice(("OK", REFUSED)),
                **about,
            )

    async def put(self, url: str) -> None:
        """Write the rows, and let the database look at them."""
        await put_rows(url, self.rows)


async def put_rows(url: str, rows: Mapping[str, list[Row]]) -> None:
    """Write rows, by table, and let the database look at them."""
    tables = [(table, rows[table.name]) for table in metadata.sorted_tables if table.name in rows]
    if url.startswith("sqlite"):
        _put_sqlite(url, tables)
    else:
        await _put_postgresql(url, tables)


Tables = list[tuple[sa.Table, list[Row]]]


def _records(table: sa.Table, rows: list[Row]) -> list[tuple[Any, ...]]:
    """The rows with all columns: what no list depends on is empty, or nothing where it may be."""
    empty = {column.name: None if column.nullable else column.type.python_type() for column in table.columns}
    return [tuple((empty | row)[name] for name in empty) for row in rows]


def _put_sqlite(url: str, tables: Tables) -> None:
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection:
        for table, rows in tables:
            names, places = (
                ", ".join(made) for made in ((column.name for column in table.columns), "?" * len(table.columns))
            )
            connection.executemany(f"INSERT INTO {table.name} ({names}) VALUES ({places})", _records(table, rows))
        connection.commit()


async def _put_postgresql(url: str, tables: Tables) -> None:
    """The planner is told that pages are in memory, as those of tables that small are."""
    connection = await asyncpg.connect(url)
    database = await connection.fetchval("SELECT current_database()")
    for table, rows in tables:
        names = [column.name for column in table.columns]
        await connection.copy_records_to_table(table.name, records=_records(table, rows), columns=names)
    await connection.execute(f"ALTER DATABASE {database} SET random_page_cost = 1.1; ANALYZE")
    await connection.close()
