"""The access matrix: every RPC × every field that names a resource × every kind of caller, from the access options alone.

A cell is one call. What it should be answered with follows from the method's option, from the role that the caller holds
where the field's value lies, and from whether they may see that; nothing is listed by method. Calls end where their
handlers would begin, and their form is not validated, so a cell never changes anything. What a caller may not see is
asked for twice, as it is and in the same form for what is not there, and both must read the same.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from itertools import product
from typing import Any

import grpc
import pytest
from blobhub.v1 import (
    access_pb2,
    api_key_pb2,
    blob_pb2,
)
from blobhub_server.blobtypes.access import Role
from blobhub_server.blobtypes.conformance import reason_of
from blobhub_server.db.schema import metadata
from blobhub_server.errors import InvalidValue
from blobhub_server.ids import is_uuid
from databases import select
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import error_details_pb2 as _  # noqa: F401  its messages are told in words
from google.rpc import status_pb2
from methods import Method
from scale import sample
from served import WORKFLOW, Api, Served, connected
from world import NOWHERE, Kind, Row, World

ALLOWED = "allowed"
BUSY = (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.ABORTED)
TRIES = 20
"""How often a call is made that a busy server has not come to."""
UNAUTHENTICATED = "UNAUTHENTICATED"
DENIED = "PERMISSION_DENIED"
NOT_FOUND = "NOT_FOUND"

NEEDED = {
    access_pb2.PERMISSION_READ: Role.READ,
    access_pb2.PERMISSION_WRITE: Role.WRITE,
    access_pb2.PERMISSION_ADMIN: Role.ADMIN,
}


def expected(row: Row, kind: Kind) -> str:
    """What the access options say of a cell."""
    permission = row.method.access.permission
    if not kind.authentic:
        return UNAUTHENTICATED
    if kind.anonymous and permission != access_pb2.PERMISSION_ANYONE and not row.method.access.public_read:
        return UNAUTHENTICATED
    if row.rule is None or row.subject is None:
        held = {
            access_pb2.PERMISSION_ANYONE: True,
            access_pb2.PERMISSION_CALLER: True,
            access_pb2.PERMISSION_USER: kind.user,
            access_pb2.PERMISSION_ADMINISTRATOR: kind.administrator,
        }[permission]
        return ALLOWED if held else DENIED
    if row.rule.worker and row.subject.works(kind):
        return ALLOWED
    role = row.subject.role(kind)
    if row.rule.public_read and row.subject.public:
        role = max(role, Role.READ)
    if role >= NEEDED[row.rule.permission]:
        return ALLOWED
    if kind.anonymous:
        return UNAUTHENTICATED
    return NOT_FOUND if hidden(row, kind) and row.subject.parent_is_read_by(kind) else DENIED


def hidden(row: Row, kind: Kind) -> bool:
    """Whether a caller must not learn if the row's resource exists."""
    return row.rule is not None and row.subject is not None and not row.subject.seen_by(kind, row.rule.resource)


@contextmanager
def at_the_gate() -> Iterator[None]:
    """Calls of this process's servers are not validated, and end where their handlers would begin."""

    def reach(_observed: object) -> None:
        raise InvalidValue("", "the handler would begin here")

    with pytest.MonkeyPatch.context() as patch:
        for module in ("observed", "arriving"):
            patch.setattr(f"blobhub_server.rpc.{module}.validate", lambda _request: None)
        patch.setattr("blobhub_server.rpc.observed.Observed.begin", reach)
        yield


async def answer(api: Api, method: Method, data: bytes) -> grpc.aio.AioRpcError | None:
    """Make a call; the error it is answered with. One that a busy server has no room for says nothing, and is made again."""
    error, tries = await _answer(api, method, data), 1
    while error is not None and error.code() in BUSY and tries < TRIES:
        await asyncio.sleep(0.1)
        error, tries = await _answer(api, method, data), tries + 1
    return error


async def _answer(api: Api, method: Method, data: bytes) -> grpc.aio.AioRpcError | None:
    """The error that a call is answered with. Streams are read to their first message."""
    try:
        if method.client_streaming and method.server_streaming:
            async for _ in (both := api.channel.stream_stream(method.path)(iter([data]))):
                both.cancel()
                break
        elif method.client_streaming:
            await api.channel.stream_unary(method.path)(iter([data]))
        elif method.server_streaming:
            call = api.channel.unary_stream(method.path)(data)
            async for _ in call:
                call.cancel()
                break
        else:
            await api.channel.unary_unary(method.path)(data)
    except grpc.aio.AioRpcError as error:
        return error
    return None


def outcome(method: Method, error: grpc.aio.AioRpcError | None) -> str:
    """A cell's outcome: refused with a code, or let through the gate."""
    if error is None:
        assert not method.changes, f"{method.path} was let through to its handler"
        return ALLOWED
    code = error.code().name
    if code in (UNAUTHENTICATED, DENIED, NOT_FOUND):
        assert reason_of(error) == code, (method.path, reason_of(error))
        return code
    assert code == "INVALID_ARGUMENT", (method.path, code, error.details())
    return ALLOWED


def words(error: grpc.aio.AioRpcError | None, reference: str) -> Any:
    """All that an error says, without the reference that was sent."""
    if error is None:
        return None
    trailers = dict(error.trailing_metadata() or ())
    status = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
    texts = [text.replace(reference, "…") for text in (error.details() or "", str(status))]
    return error.code(), texts, list(trailers)


def columns(rows: list[Row], kinds: list[Kind]) -> list[tuple[Kind, list[Row]]]:
    """The rows to try each kind of caller on: all of them at full scale.

    With fewer, every row is there with some caller, and every method and every kind of caller with each answer it can get.
    """

    def shown(cell: tuple[Row, Kind]) -> tuple[str, tuple[str, str], tuple[str, str]]:
        row, kind = cell
        should = expected(row, kind)
        return str(row), (row.method.path, should), (kind.name, should)

    chosen = sample(list(product(rows, kinds)), shown, seed=22)
    return [(kind, [row for row, other in chosen if other is kind]) for kind in kinds]


async def cells(world: World, rows: list[Row], kind: Kind) -> AsyncIterator[str]:
    """Run a caller's column; yield what is wrong, cell by cell."""
    async with connected(world.server.address, kind.key or None) as api:
        for start in range(0, len(rows), 64):
            with at_the_gate():
                found = await asyncio.gather(*(_cell(world, api, row, kind) for row in rows[start : start + 64]))
            for wrong in filter(None, found):
                yield wrong


async def beyond(world: World) -> AsyncIterator[str]:
    """What rules decide beyond the options; yields what is wrong. Some of what is allowed makes keys."""
    by_name = {kind.name: kind for kind in world.kinds}
    writer, admin = by_name["writer of the organization"], by_name["admin of the organization"]
    keys: list[tuple[str, str, dict[str, Any], str]] = [
        (admin.key, "acme", {"role": "ROLE_ADMIN"}, "INVALID_ARGUMENT"),
        (admin.key, "acme", {"role": "ROLE_WRITE"}, "OK"),
        (by_name["oneself"].key, "@me", {"role": "ROLE_ADMIN"}, "OK"),
        (admin.key, "acme", {"role": "ROLE_WORKER", "queue_names": ["resize"]}, "OK"),
        (admin.key, "acme", {"role": "ROLE_WORKER"}, "INVALID_ARGUMENT"),
        (admin.key, "acme", {"role": "ROLE_READ", "queue_names": ["resize"]}, "INVALID_ARGUMENT"),
        (admin.key, "acme/main", {"role": "ROLE_WORKER", "queue_names": ["resize"]}, "INVALID_ARGUMENT"),
        (by_name["oneself"].key, "@me", {"role": "ROLE_WORKER", "queue_names": ["resize"]}, "INVALID_ARGUMENT"),
    ]
    short = await world.key("@self-acme", "ROLE_ADMIN", 3600)
    for seconds, code in ((0, "OK"), (-60, "OK"), (600, "PERMISSION_DENIED"), (None, "OK")):
        expire_time = None
        if seconds is not None:
            expire_time = Timestamp(seconds=short.api_key.expire_time.seconds + seconds)
        keys.append((short.key, "@me", {"role": "ROLE_ADMIN", "expire_time": expire_time}, code))
    for key, scope, fields, code in keys:
        made = api_key_pb2.CreateApiKeyRequest(parent=scope, **fields)
        async with connected(world.server.address, key) as api:
            found = await _code(api.api_keys.CreateApiKey(made))
            if found != code:
                yield f"CreateApiKey on {scope} with {fields} was {found}, not {code}"
    endless = (await world.key("@self-acme", "ROLE_READ")).api_key.id
    async with connected(world.server.address, short.key) as api:
        found = await _code(api.api_keys.RotateApiKey(api_key_pb2.RotateApiKeyRequest(api_key=endless)))
        if found != "PERMISSION_DENIED":
            yield f"RotateApiKey of a key that outlives the caller's was {found}"
    for kind, visibility, code in (
        (writer, "VISIBILITY_PUBLIC", "PERMISSION_DENIED"),
        (writer, "VISIBILITY_PRIVATE", "ALREADY_EXISTS"),
        (admin, "VISIBILITY_PUBLIC", "ALREADY_EXISTS"),
    ):
        request = blob_pb2.CreateBlobRequest(organization="acme", alias="main", type=WORKFLOW, visibility=visibility)
        async with connected(world.server.address, kind.key) as api:
            found = await _code(api.blobs.CreateBlob(request))
            if found != code:
                yield f"{kind.name} creating a {visibility} blob was {found}, not {code}"

    for fields, code in (
        ({"description": "", "etag": "stale"}, "ABORTED"),
        ({"alias": "main", "etag": "stale"}, "PERMISSION_DENIED"),
        ({"visibility": "VISIBILITY_PUBLIC", "etag": "stale"}, "PERMISSION_DENIED"),
    ):
        update = blob_pb2.UpdateBlobRequest(blob="acme/main", update_mask={"paths": [*fields][:1]}, **fields)
        async with connected(world.server.address, writer.key) as api:
            found = await _code(api.blobs.UpdateBlob(update))
            if found != code:
                yield f"{writer.name} updating {next(iter(fields))} was {found}, not {code}"
        async with connected(world.server.address, admin.key) as api:
            found = await _code(api.blobs.UpdateBlob(update))
            if found != "ABORTED":
                yield f"{admin.name} updating {next(iter(fields))} was {found}"


def absent_like(value: str) -> str:
    """A reference to nothing, in the form of one to something."""
    if is_uuid(value):
        return NOWHERE
    if value.startswith("@"):
        return "@absent"
    if "@" in value and "/" in value.partition("@")[2]:
        return f"{value.rpartition('/')[0]}/absent"
    organization, slash, below = value.partition("/")
    if is_uuid(organization):
        return f"{NOWHERE}/{below}"
    return f"{organization}/absent{below[below.find('@') :] if '@' in below else ''}" if slash else "absent"


async def _code(call: Any) -> str:
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return error.code().name
    return "OK"


async def _cell(world: World, api: Api, row: Row, kind: Kind) -> str:
    value = row.subject.value if row.subject else ""
    error = await answer(api, row.method, world.request(row, value))
    found, should = outcome(row.method, error), expected(row, kind)
    if found != should:
        return f"{kind.name}: {row} was {found}, not {should}"
    if kind.authentic and hidden(row, kind):
        reference = absent_like(value)
        absent = await answer(api, row.method, world.request(row, reference))
        said, like = words(error, value), words(absent, reference)
        if said != like:
            return f"{kind.name}: {row}: absent and forbidden differ: {like} and {said}"
    return ""


UNHASHED: Mapping[str, frozenset[str]] = {
    "audit_entries": frozenset({"*"}),
    "audit_head": frozenset({"*"}),
    "api_keys": frozenset({"last_used_time"}),
    "servers": frozenset({"*"}),
}
"""What may change though every call is refused: the audit log, when a key was last used, and the server's own lease."""


async def fingerprint(server: Served) -> dict[str, str]:
    """Hashes over every row of every table, but for `UNHASHED`, and over the object store; by name."""
    found = {}
    for table in metadata.sorted_tables:
        skipped = UNHASHED.get(table.name, frozenset())
        if "*" in skipped:
            continue
        columns = ", ".join(column.name for column in table.columns if column.name not in skipped)
        rows = await select(server.settings.url, f"SELECT {columns} FROM {table.name}")
        found[table.name] = hashlib.sha256(repr(sorted(map(repr, rows))).encode()).hexdigest()
    for path in (server.settings.data_dir / "objects").rglob("*"):
        found[str(path)] = hashlib.sha256(path.read_bytes() if path.is_file() else b"").hexdigest()
    return found
