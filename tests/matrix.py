"""The access matrix: every RPC × every field that names a resource × every kind of caller, from the access options alone.

A cell is one call. What it should be answered with follows from the method's option and from the role that the caller
holds where the field's value lies; nothing is listed by method. Calls of methods that change something carry a
`request_id` that is none: they are admitted or refused like any other, and then fail its constraint, so a cell never
changes anything.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import flows
import grpc
from blobhub.v1 import (
    access_pb2,
    api_key_pb2,
    blob_pb2,
    caller_pb2,
    credential_pb2,
    execution_pb2,
    member_pb2,
    organization_pb2,
    revision_pb2,
    session_pb2,
    user_pb2,
)
from blobhub_server.blobtypes.access import Role
from blobhub_server.blobtypes.conformance import reason_of
from blobhub_server.db.schema import metadata
from blobhub_server.platform.rules.api_key import checksum, make_secret
from databases import select
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.timestamp_pb2 import Timestamp
from issuer import AUDIENCE, ISSUER, SERVED, claims, key_set, signed
from methods import Method
from scale import sample
from served import WORKFLOW, Api, Served, connected
from waiting import refused_in_the_end

NOT_AN_ID = "not-a-uuid"
NOWHERE = "01890000-0000-7000-8000-000000000000"

ALLOWED = "allowed"
UNAUTHENTICATED = "UNAUTHENTICATED"
DENIED = "PERMISSION_DENIED"


@dataclass(frozen=True)
class Kind:
    """A kind of caller: the key it calls with (empty for none), and the roles it holds.

    `roles` are held on the organization, on its blob and on the user; `authentic` is false when the key does not hold;
    `user` is true for users who are not confined, `administrator` for those of the server.
    """

    name: str
    key: str = ""
    organization: Role = Role.NONE
    blob: Role = Role.NONE
    self: Role = Role.NONE
    authentic: bool = True
    user: bool = False
    administrator: bool = False

    @property
    def anonymous(self) -> bool:
        return not self.key


@dataclass(frozen=True)
class Subject:
    """A value for a field that names a resource, and whether that is public.

    `level` says where roles on it are held: on the `organization`, its `blob`, the user `self`; or by none of the callers.
    """

    value: str
    level: str
    public: bool = False

    def role(self, kind: Kind) -> Role:
        """The role that a kind of caller holds on it."""
        if kind.administrator:
            return Role.ADMIN
        return Role.NONE if self.level == "foreign" else getattr(kind, self.level)


@dataclass(frozen=True)
class Row:
    """A method, one of the resources it names, and the value for that; the other resources are ones everybody may read."""

    method: Method
    rule: access_pb2.AccessRule | None
    subject: Subject | None

    def __str__(self) -> str:
        return f"{self.method.path} {self.rule.field if self.rule else ''}={self.subject.value if self.subject else ''}"


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
    role = row.subject.role(kind)
    if row.rule.public_read and row.subject.public:
        role = max(role, Role.READ)
    return ALLOWED if role >= NEEDED[row.rule.permission] else DENIED


def settings(folder: Path) -> dict[str, str]:
    """Settings of a server for a world: it takes the tokens of the test's own issuer."""
    jwks = folder / "jwks.json"
    jwks.write_bytes(key_set(SERVED))
    return {"oidc_issuer": ISSUER, "oidc_audience": AUDIENCE, "oidc_jwks": str(jwks)}


class World:
    """The organizations, blobs, users and keys that the cells are about. The matrix is read from it and changes nothing."""

    def __init__(self, server: Served, api: Api) -> None:
        self.server = server
        self.api = api
        self.kinds: list[Kind] = []
        self.subjects: dict[str, list[Subject]] = {}

    async def build(self) -> None:
        """Make everything, as the administrator."""
        await self.api.session(flows.steps(1), organization="acme", blob="main")
        private = await self._place("acme", "main")
        await self.api.blobs.CreateBlob(blob_pb2.CreateBlobRequest(organization="acme", alias="other", type=WORKFLOW))
        await self._notes("acme/notes")
        await self.api.session(flows.steps(1), organization="open", blob="main")
        public = await self._place("open", "main")
        await self._open()
        self.subjects = private
        for kind, subjects in public.items():
            made_public = [Subject(s.value, "foreign", public=True) for s in subjects if s.level != "self"]
            self.subjects[kind] = self.subjects[kind] + made_public
        self.subjects["audit_scope"].append(Subject("-", "foreign"))
        # A draft that is one of several reads like any other revision to those who may not see it.
        self.subjects["revision"].append(Subject("acme/main@draft", "blob"))
        await self._callers()

    async def _place(self, organization: str, blob: str) -> dict[str, list[Subject]]:
        """Subjects of every kind in an organization: on itself, on its blob, and on a user."""
        place = f"{organization}/{blob}"
        sessions = await self.api.sessions.ListSessions(session_pb2.ListSessionsRequest(blob=place))
        session_id = sessions.sessions[0].id
        start = execution_pb2.StartExecutionRequest(session_id=session_id, definition="workflow")
        execution = await self.api.executions.StartExecution(start)
        found = await self.api.revisions.GetRevision(revision_pb2.GetRevisionRequest(revision=place))
        await self.api.revisions.CommitRevision(revision_pb2.CommitRevisionRequest(revision=found.revision.id))
        for _ in range(2):
            await self.api.revisions.CreateRevision(revision_pb2.CreateRevisionRequest(blob=place))
        user = (await self.api.users.CreateUser(user_pb2.CreateUserRequest(name=f"self-{organization}"))).user
        on_both = [Subject(organization, "organization"), Subject(place, "blob")]
        on_all = [*on_both, Subject(f"@{user.name}", "self")]
        return {
            "organization": [Subject(organization, "organization")],
            "blob": [Subject(place, "blob"), Subject(found.revision.blob_id, "blob")],
            "revision": [Subject(f"{place}@default", "blob"), Subject(found.revision.id, "blob")],
            "scope": on_both,
            "target": [Subject(place, "blob"), Subject(f"{place}@default", "blob")],
            "owner": on_all,
            "user": [Subject(f"@{user.name}", "self"), Subject(user.id, "self")],
            "audit_scope": list(on_both),
            "api_key": [Subject(await self._key_id(s.value), s.level) for s in on_all],
            "credential": [Subject(await self._credential_id(s.value), s.level) for s in on_all],
            "session": [Subject(session_id, "blob")],
            "execution": [Subject(execution.execution.id, "blob")],
        }

    async def _key_id(self, scope: str) -> str:
        return (await self.key(scope, "ROLE_READ")).api_key.id

    async def _credential_id(self, owner: str) -> str:
        request = credential_pb2.CreateCredentialRequest(owner=owner, alias="matrix", type="test", body={"user": "nobody"})
        return (await self.api.credentials.CreateCredential(request)).credential.id

    async def _notes(self, place: str) -> None:
        organization, alias = place.split("/")
        request = blob_pb2.CreateBlobRequest(organization=organization, alias=alias, type="stranger.notes")
        await self.api.blobs.CreateBlob(request)

    async def _open(self) -> None:
        request = organization_pb2.UpdateOrganizationRequest(organization="open", visibility="VISIBILITY_PUBLIC")
        await self.api.organizations.UpdateOrganization(request)
        await self.api.blobs.UpdateBlob(blob_pb2.UpdateBlobRequest(blob="open/main", visibility="VISIBILITY_PUBLIC"))

    async def key(self, scope: str, role: str, seconds: float | None = None) -> api_key_pb2.CreateApiKeyResponse:
        """A key of a scope, which may end after so many seconds."""
        request = api_key_pb2.CreateApiKeyRequest(scope=scope, role=role)
        if seconds is not None:
            ends = Timestamp()
            ends.FromDatetime(datetime.now(UTC) + timedelta(seconds=seconds))
            request.expire_time.CopyFrom(ends)
        return await self.api.api_keys.CreateApiKey(request)

    async def user(self, name: str, *memberships: tuple[str, str], role: str = "ROLE_ADMIN") -> str:
        """A user with roles on scopes; returns a personal key of theirs, confined to `role`."""
        await self.api.users.CreateUser(user_pb2.CreateUserRequest(name=name))
        for scope, held in memberships:
            await self.api.members.CreateMember(member_pb2.CreateMemberRequest(scope=scope, user=f"@{name}", role=held))
        return (await self.key(f"@{name}", role)).key

    async def _callers(self) -> None:
        """The thirteen kinds, and some more that tell the rules of keys apart."""
        expired = (await self.key("acme", "ROLE_WRITE", 0.5)).key
        revoked = await self.key("acme", "ROLE_WRITE")
        await self.api.api_keys.RevokeApiKey(api_key_pb2.RevokeApiKeyRequest(api_key_id=revoked.api_key.id))
        disabled = await self.user("disabled", ("acme", "ROLE_ADMIN"), ("acme/main", "ROLE_ADMIN"))
        update = user_pb2.UpdateUserRequest(user="@disabled", update_mask={"paths": ["disabled"]}, disabled=True)
        await self.api.users.UpdateUser(update)
        token = signed(*SERVED["es"][::-1], "es", claims("matrix", exp=time.time() + 86_400))
        async with connected(self.server.address, token) as anybody:
            by_token = (await anybody.callers.GetCaller(caller_pb2.GetCallerRequest())).caller.user_id
        reads = member_pb2.CreateMemberRequest(scope="acme", user=by_token, role="ROLE_READ")
        await self.api.members.CreateMember(reads)
        foreign = signed(*SERVED["es"][::-1], "es", claims("matrix", iss="https://other.example"))
        confined = await self.user("confined", ("acme", "ROLE_ADMIN"), role="ROLE_READ")
        R, W, A = Role.READ, Role.WRITE, Role.ADMIN
        self.kinds = [
            Kind("anonymous"),
            Kind("malformed key", "bhk_nonsense", authentic=False),
            Kind("expired key", expired, authentic=False),
            Kind("revoked key", revoked.key, authentic=False),
            Kind("disabled user", disabled, authentic=False),
            Kind("forged key", forged(self.server.admin_key), authentic=False),
            Kind("token of another issuer", foreign, authentic=False),
            Kind("reader with a token", token, R, R, user=True),
            Kind("stranger", await self.user("stranger"), user=True),
            Kind("reader of the blob", await self.user("reads-blob", ("acme/main", "ROLE_READ")), blob=R, user=True),
            Kind("writer of the blob", await self.user("writes-blob", ("acme/main", "ROLE_WRITE")), blob=W, user=True),
            Kind("admin of the blob", await self.user("admins-blob", ("acme/main", "ROLE_ADMIN")), blob=A, user=True),
            Kind("reader of the organization", await self.user("reads", ("acme", "ROLE_READ")), R, R, user=True),
            Kind("writer of the organization", await self.user("writes", ("acme", "ROLE_WRITE")), W, W, user=True),
            Kind("admin of the organization", await self.user("admins", ("acme", "ROLE_ADMIN")), A, A, user=True),
            Kind("key of another blob", (await self.key("acme/other", "ROLE_WRITE")).key),
            Kind("key of the blob", (await self.key("acme/main", "ROLE_WRITE")).key, blob=W),
            Kind("key of the organization", (await self.key("acme", "ROLE_READ")).key, R, R),
            Kind("admin with a reading key", confined, R, R),
            Kind("oneself", (await self.key("@self-acme", "ROLE_ADMIN")).key, self=A, user=True),
            Kind("oneself with a writing key", (await self.key("@self-acme", "ROLE_WRITE")).key, self=W),
            Kind("administrator", self.server.admin_key, user=True, administrator=True),
        ]
        async with connected(self.server.address, expired) as late:
            caller = partial(late.callers.GetCaller, caller_pb2.GetCallerRequest())
            await refused_in_the_end(caller, grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED")

    def rows(self, methods: Iterable[Method]) -> list[Row]:
        """A row for every method, resource it names, and subject of that kind. Raises KeyError for an unknown kind."""
        made = []
        for method in methods:
            rules = [method.access, *method.access.also] if method.access.field else []
            if not rules:
                made.append(Row(method, None, None))
            for rule in rules:
                made += [Row(method, rule, subject) for subject in self.subjects[rule.resource]]
        return made

    def request(self, row: Row, value: str) -> bytes:
        """The request of a cell, with `value` for the row's field."""
        made = GetMessageClass(row.method.input)()
        for rule in (row.method.access, *row.method.access.also):
            if rule.field:
                own = row.rule is not None and rule.field == row.rule.field
                setattr(made, rule.field, value if own else "open/main")
        if row.method.changes:
            made.request_id = NOT_AN_ID
        return made.SerializeToString()

    def absent(self, row: Row) -> str:
        """A value of the row's kind that leads nowhere."""
        assert row.rule is not None
        return {
            "organization": "no-such",
            "blob": "no-such/blob",
            "revision": "no-such/blob@1",
            "scope": "no-such/blob",
            "target": "no-such/blob",
            "owner": "@no-such",
            "user": "@no-such",
            "audit_scope": "no-such",
        }.get(row.rule.resource, NOWHERE)


def forged(key: str) -> str:
    """A well-formed key with the public id of another one, and a secret of its own."""
    other = make_secret(os.urandom)
    text = f"{key[:17]}{other.split('_')[2][:22]}"
    return text + checksum(text)


async def answer(api: Api, method: Method, data: bytes) -> grpc.aio.AioRpcError | None:
    """Make a call; the error it is answered with. Streams are read to their first message."""
    try:
        if method.client_streaming:
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
        assert not method.changes, f"{method.path} was let through with a request_id that is none"
        return ALLOWED
    code = error.code().name
    if code in (UNAUTHENTICATED, DENIED):
        assert reason_of(error) == code, (method.path, reason_of(error))
        return code
    assert code not in ("INTERNAL", "UNKNOWN", "UNIMPLEMENTED", "UNAVAILABLE"), (method.path, code, error.details())
    return ALLOWED


def words(error: grpc.aio.AioRpcError | None) -> Any:
    """All that an error says."""
    return None if error is None else (error.code(), error.details(), list(error.trailing_metadata() or ()))


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
            for wrong in await asyncio.gather(*(_cell(world, api, row, kind) for row in rows[start : start + 64])):
                if wrong:
                    yield wrong


async def beyond(world: World) -> AsyncIterator[str]:
    """What rules decide beyond the options; yields what is wrong. Some of what is allowed makes keys."""
    by_name = {kind.name: kind for kind in world.kinds}
    writer, admin = by_name["writer of the organization"], by_name["admin of the organization"]
    keys: list[tuple[str, str, dict[str, Any], str]] = [
        (admin.key, "acme", {"role": "ROLE_ADMIN"}, "INVALID_ARGUMENT"),
        (admin.key, "acme", {"role": "ROLE_WRITE"}, "OK"),
        (by_name["oneself"].key, "@me", {"role": "ROLE_ADMIN"}, "OK"),
    ]
    short = await world.key("@self-acme", "ROLE_ADMIN", 3600)
    for seconds, code in ((0, "OK"), (-60, "OK"), (600, "PERMISSION_DENIED"), (None, "OK")):
        expire_time = None
        if seconds is not None:
            expire_time = Timestamp(seconds=short.api_key.expire_time.seconds + seconds)
        keys.append((short.key, "@me", {"role": "ROLE_ADMIN", "expire_time": expire_time}, code))
    for key, scope, fields, code in keys:
        made = api_key_pb2.CreateApiKeyRequest(scope=scope, **fields)
        async with connected(world.server.address, key) as api:
            found = await _code(api.api_keys.CreateApiKey(made))
            if found != code:
                yield f"CreateApiKey on {scope} with {fields} was {found}, not {code}"
    endless = (await world.key("@self-acme", "ROLE_READ")).api_key.id
    async with connected(world.server.address, short.key) as api:
        found = await _code(api.api_keys.RotateApiKey(api_key_pb2.RotateApiKeyRequest(api_key_id=endless)))
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
    if found == DENIED and row.rule is not None:
        absent = await answer(api, row.method, world.request(row, world.absent(row)))
        if words(absent) != words(error):
            return f"{kind.name}: {row}: absent and forbidden differ: {words(absent)} and {words(error)}"
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
