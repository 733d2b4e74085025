"""The world that the access matrix is tried in: callers of every kind, and something of every kind to call about."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import acme
import flows
import grpc
import model_uploads
import operations
import schedules
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
from blobhub_server.platform.rules.api_key import checksum, make_secret
from calling import ask
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.timestamp_pb2 import Timestamp
from issuer import AUDIENCE, ISSUER, SERVED, claims, key_set, signed
from methods import Method
from served import WORKFLOW, Api, Served, connected
from waiting import refused_in_the_end

NOT_AN_ID = "not-a-uuid"
NEVER_PUBLIC = (
    *("api_key", "credential", "execution", "firing", "lease", "model_upload", "note_run", "operation", "queue", "session"),
    "user",
)
"""Kinds of resource that are not shown to everybody, even where their place is public."""
NOWHERE = "01890000-0000-7000-8000-000000000000"


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
    queues: frozenset[str] = frozenset()

    @property
    def anonymous(self) -> bool:
        return not self.key


@dataclass(frozen=True)
class Subject:
    """A value for a field that names a resource, and whether that is public.

    `queue` is the queue that it is, or is a lease of.

    `level` says where roles on it are held: on the `organization`, its `blob`, the user `self`; or by none of the callers.
    """

    value: str
    level: str
    public: bool = False
    queue: str = ""

    def works(self, kind: Kind) -> bool:
        """Whether a kind of caller is a worker of it: a queue of acme's, or a lease of one."""
        return self.level == "organization" and self.queue in kind.queues

    def role(self, kind: Kind) -> Role:
        """The role that a kind of caller holds on it."""
        if kind.administrator:
            return Role.ADMIN
        return Role.NONE if self.level == "foreign" else getattr(kind, self.level)

    def seen_by(self, kind: Kind, resource: str) -> bool:
        """Whether a kind of caller may see it. Keys and credentials of organizations and blobs are for admins."""
        if self.value == "-" or (self.public and resource not in NEVER_PUBLIC):
            return True
        if self.works(kind):
            return True
        needed = Role.ADMIN if resource in ("api_key", "credential") and self.level != "self" else Role.READ
        return self.role(kind) >= needed

    def parent_is_read_by(self, kind: Kind) -> bool:
        """Whether a kind of caller may read the parent that the value names: an organization, or the server."""
        organization, slash, _ = self.value.partition("/")
        named = slash and (organization == "open" or (organization == "acme" and kind.organization >= Role.READ))
        return bool(kind.administrator or named)


@dataclass(frozen=True)
class Row:
    """A method, one of the resources it names, and the value for that; the other resources are ones everybody may read."""

    method: Method
    rule: access_pb2.AccessRule | None
    subject: Subject | None

    def __str__(self) -> str:
        return f"{self.method.path} {self.rule.field if self.rule else ''}={self.subject.value if self.subject else ''}"


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
        await self.api.session(flows.steps(1), organization="open", blob="main")
        public = await self._place("open", "main")
        await self._open()
        self.subjects = private
        for kind, subjects in public.items():
            made_public = [replace(s, level="foreign", public=True) for s in subjects if s.level != "self"]
            self.subjects[kind] = self.subjects[kind] + made_public
        self.subjects["organization_blob_or_server"].append(Subject(value="-", level="foreign"))
        # Private, in an organization that everybody reads.
        await self.api.blobs.CreateBlob(blob_pb2.CreateBlobRequest(organization="open", alias="secret", type=WORKFLOW))
        for kind in (
            "blob",
            *("organization_or_blob", "blob_or_revision", "organization_blob_or_user", "organization_blob_or_server"),
        ):
            self.subjects[kind].append(Subject(value="open/secret", level="foreign"))
        self.subjects["revision"].append(Subject(value="open/secret@default", level="foreign"))
        await self._hide_drafts()
        # A draft that is one of several reads like any other revision to those who may not see it.
        self.subjects["revision"].append(Subject(value="acme/main@draft", level="blob"))
        await self._callers()

    async def _hide_drafts(self) -> None:
        """Drafts of a blob that everybody reads are like none to those who hold no role on it."""
        await acme.blob(self.api, "open/one", visibility="VISIBILITY_PUBLIC")
        await self.api.put(flows.code("pass"), revision="open/one@draft")
        draft = await acme.get_revision(self.api, "open/one@draft")
        definition = (await ask(self.api, "ListDefinitions", revision=draft.id)).definitions[0].id
        for kind, values in {
            "revision": [draft.id],
            "blob_or_revision": [draft.id],
            "definition": [definition, f"{draft.id}/workflow"],
        }.items():
            self.subjects[kind] += [Subject(value=value, level="foreign") for value in values]

    async def _place(self, organization: str, blob: str) -> dict[str, list[Subject]]:
        """Subjects of every kind in an organization: on itself, on its blob, and on a user."""
        place = f"{organization}/{blob}"
        sessions = await self.api.sessions.ListSessions(session_pb2.ListSessionsRequest(blob=place))
        session_id = sessions.sessions[0].id
        start = execution_pb2.StartExecutionRequest(session=session_id, spec={"definition": "workflow"})
        execution = await self.api.executions.StartExecution(start)
        found = await self.api.revisions.GetRevision(revision_pb2.GetRevisionRequest(revision=place))
        await self.api.revisions.CommitRevision(revision_pb2.CommitRevisionRequest(revision=found.revision.id))
        for _ in range(2):
            await self.api.revisions.CreateRevision(revision_pb2.CreateRevisionRequest(blob=place))
        user = (await self.api.users.CreateUser(user_pb2.CreateUserRequest(name=f"self-{organization}"))).user
        listed = await ask(self.api, "ListDefinitions", revision=found.revision.id)
        await self.api.sessions.CreateSession(session_pb2.CreateSessionRequest(revision=place, alias="hidden"))
        on_both = [Subject(value=organization, level="organization"), Subject(value=place, level="blob")]
        on_all = [*on_both, Subject(value=f"@{user.name}", level="self")]
        return {
            "organization": [Subject(value=organization, level="organization")],
            "blob": [Subject(value=place, level="blob"), Subject(value=found.revision.blob_id, level="blob")],
            "revision": [Subject(value=f"{place}@default", level="blob"), Subject(value=found.revision.id, level="blob")],
            "organization_or_blob": on_both,
            "blob_or_revision": [Subject(value=place, level="blob"), Subject(value=f"{place}@default", level="blob")],
            "organization_blob_or_user": on_all,
            "user": [Subject(value=f"@{user.name}", level="self"), Subject(value=user.id, level="self")],
            "organization_blob_or_server": list(on_both),
            "api_key": [Subject(value=await self._key_id(s.value), level=s.level) for s in on_all],
            "credential": [Subject(value=await self._credential_id(s.value), level=s.level) for s in on_all],
            "note_run": [Subject(value=await self._run_of_a_note(organization), level="organization")],
            "operation": [Subject(value=await self._operation(organization), level="organization")],
            "model_upload": [Subject(value=await self._model_upload(organization), level="organization")],
            "definition": [
                Subject(value=f"{place}@default/workflow", level="blob"),
                Subject(value=listed.definitions[0].id, level="blob"),
            ],
            "session": [Subject(value=session_id, level="blob"), Subject(value=f"{place}@default/hidden", level="blob")],
            "execution": [Subject(value=execution.execution.id, level="blob")],
            "queue": [Subject(value=f"{organization}/resize", level="organization", queue="resize")],
            "lease": [Subject(value=await self._lease(organization), level="organization", queue="resize")],
            **await self._schedule(organization),
        }

    async def _key_id(self, scope: str) -> str:
        return (await self.key(scope, "ROLE_READ")).api_key.id

    async def _credential_id(self, owner: str) -> str:
        request = credential_pb2.CreateCredentialRequest(parent=owner, alias="matrix", type="test", body={"user": "nobody"})
        return (await self.api.credentials.CreateCredential(request)).credential.id

    async def _run_of_a_note(self, organization: str) -> str:
        """Run a note of another blob of an organization, on which the callers have no role of its own."""
        notes = f"{organization}/notes"
        await acme.blob(self.api, notes, "stranger.notes")
        await ask(self.api, "PutNote", revision=notes, name="one", text="A note.")
        workflow = {"workflow": f"{organization}/main", "definition": "workflow"}
        return (await ask(self.api, "RunNote", revision=notes, name="one", **workflow)).run_id

    async def _operation(self, organization: str) -> str:
        """An operation on that note, which has ended."""
        begun = await operations.begin(self.api, f"{organization}/notes")
        return (await operations.ended(self.api, begun.id)).id

    async def _lease(self, organization: str) -> str:
        """A lease of a queue: it need not hold, for that is looked up by whoever may use it."""
        found = await ask(self.api, "GetOrganization", organization=organization)
        return f"{found.organization.id}.resize.{NOWHERE}.{NOWHERE}"

    async def _model_upload(self, organization: str) -> str:
        """An upload to another blob of an organization, on which the callers have no role of its own."""
        await acme.blob(self.api, f"{organization}/scorer", model_uploads.ONNX)
        async with model_uploads.sending(self.api, b"a model", revision=f"{organization}/scorer@draft") as sender:
            return sender.id

    async def _schedule(self, organization: str) -> dict[str, list[Subject]]:
        """A schedule of another blob of an organization, on which the callers have no role of its own, and its firing."""
        scheduler = f"{organization}/nightly"
        await acme.blob(self.api, scheduler, schedules.SCHEDULER)
        spec = schedules.DAILY | {"invocation_target": {"revision": f"{organization}/main", "definition": "workflow"}}
        made = await schedules.create(self.api, spec=spec, revision=scheduler)
        await acme.commit(self.api, f"{scheduler}@draft")
        firing_id = (await schedules.trigger(self.api, made.id)).id
        return {
            "schedule": [
                Subject(value=made.id, level="organization"),
                Subject(value=f"{scheduler}@default/report", level="organization"),
            ],
            "firing": [Subject(value=firing_id, level="organization")],
        }

    async def _open(self) -> None:
        request = organization_pb2.UpdateOrganizationRequest(organization="open", visibility="VISIBILITY_PUBLIC")
        await self.api.organizations.UpdateOrganization(request)
        for blob in ("open/main", "open/nightly"):
            await self.api.blobs.UpdateBlob(blob_pb2.UpdateBlobRequest(blob=blob, visibility="VISIBILITY_PUBLIC"))

    async def key(self, scope: str, role: str, seconds: float | None = None) -> api_key_pb2.CreateApiKeyResponse:
        """A key of a scope, which may end after so many seconds."""
        request = api_key_pb2.CreateApiKeyRequest(parent=scope, role=role)
        if seconds is not None:
            ends = Timestamp()
            ends.FromDatetime(datetime.now(UTC) + timedelta(seconds=seconds))
            request.expire_time.CopyFrom(ends)
        return await self.api.api_keys.CreateApiKey(request)

    async def user(self, name: str, *memberships: tuple[str, str], role: str = "ROLE_ADMIN") -> str:
        """A user with roles on scopes; returns a personal key of theirs, confined to `role`."""
        await self.api.users.CreateUser(user_pb2.CreateUserRequest(name=name))
        for scope, held in memberships:
            await self.api.members.CreateMember(member_pb2.CreateMemberRequest(parent=scope, user=f"@{name}", role=held))
        return (await self.key(f"@{name}", role)).key

    async def _callers(self) -> None:
        """All kinds of callers. The one whose key expires is waited for, so that it has expired."""
        expired = (await self.key("acme", "ROLE_WRITE", 0.5)).key
        self.kinds = [*await self._unidentified(expired), *await self._users(), *await self._keys()]
        async with connected(self.server.address, expired) as late:
            caller = partial(late.callers.GetCaller, caller_pb2.GetCallerRequest())
            await refused_in_the_end(caller, grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED")

    async def _unidentified(self, expired: str) -> list[Kind]:
        """Those whom the server cannot identify."""
        revoked = await self.key("acme", "ROLE_WRITE")
        await self.api.api_keys.RevokeApiKey(api_key_pb2.RevokeApiKeyRequest(api_key=revoked.api_key.id))
        disabled = await self.user("disabled", ("acme", "ROLE_ADMIN"), ("acme/main", "ROLE_ADMIN"))
        update = user_pb2.UpdateUserRequest(user="@disabled", update_mask={"paths": ["disabled"]}, disabled=True)
        await self.api.users.UpdateUser(update)
        foreign = signed(*SERVED["es"][::-1], "es", claims("matrix", iss="https://other.example"))
        return [
            Kind(name="anonymous"),
            Kind(name="malformed key", key="bhk_nonsense", authentic=False),
            Kind(name="expired key", key=expired, authentic=False),
            Kind(name="revoked key", key=revoked.key, authentic=False),
            Kind(name="disabled user", key=disabled, authentic=False),
            Kind(name="forged key", key=forged(self.server.admin_key), authentic=False),
            Kind(name="token of another issuer", key=foreign, authentic=False),
        ]

    async def _users(self) -> list[Kind]:
        """Users with a role on the organization, on the blob, or none."""
        token = signed(*SERVED["es"][::-1], "es", claims("matrix", exp=time.time() + 86_400))
        async with connected(self.server.address, token) as anybody:
            by_token = (await anybody.callers.GetCaller(caller_pb2.GetCallerRequest())).caller.user_id
        reads = member_pb2.CreateMemberRequest(parent="acme", user=by_token, role="ROLE_READ")
        await self.api.members.CreateMember(reads)
        kinds = [
            Kind(name="reader with a token", key=token, organization=Role.READ, blob=Role.READ, user=True),
            Kind(name="stranger", key=await self.user("stranger"), user=True),
        ]
        roles = {"reader": Role.READ, "writer": Role.WRITE, "admin": Role.ADMIN}
        for noun, role in roles.items():
            key = await self.user(f"{noun}-of-blob", ("acme/main", f"ROLE_{role.name}"))
            kinds.append(Kind(name=f"{noun} of the blob", key=key, blob=role, user=True))
        for noun, role in roles.items():
            key = await self.user(f"{noun}-of-organization", ("acme", f"ROLE_{role.name}"))
            kinds.append(Kind(name=f"{noun} of the organization", key=key, organization=role, blob=role, user=True))
        return kinds

    async def _keys(self) -> list[Kind]:
        """Keys that are scoped or confined, and the administrator's."""
        R, W, A = Role.READ, Role.WRITE, Role.ADMIN
        confined = await self.user("confined", ("acme", "ROLE_ADMIN"), role="ROLE_READ")
        return [
            Kind(name="key of another blob", key=(await self.key("acme/other", "ROLE_WRITE")).key),
            Kind(name="key of the blob", key=(await self.key("acme/main", "ROLE_WRITE")).key, blob=W),
            Kind(name="key of the organization", key=(await self.key("acme", "ROLE_READ")).key, organization=R, blob=R),
            Kind(name="worker of the queue", key=await self._worker("resize"), queues=frozenset({"resize"})),
            Kind(name="worker of another queue", key=await self._worker("other"), queues=frozenset({"other"})),
            Kind(name="admin with a reading key", key=confined, organization=R, blob=R),
            Kind(name="oneself", key=(await self.key("@self-acme", "ROLE_ADMIN")).key, self=A, user=True),
            Kind(name="oneself with a writing key", key=(await self.key("@self-acme", "ROLE_WRITE")).key, self=W),
            Kind(name="administrator", key=self.server.admin_key, user=True, administrator=True),
        ]

    async def _worker(self, queue: str) -> str:
        request = api_key_pb2.CreateApiKeyRequest(parent="acme", role="ROLE_WORKER", queue_names=[queue])
        return (await self.api.api_keys.CreateApiKey(request)).key

    def rows(self, methods: Iterable[Method]) -> list[Row]:
        """A row for every method, resource it names, and subject of that kind. Raises KeyError for an unknown kind."""
        made = []
        for method in methods:
            rules = [method.access, *method.access.also] if method.access.field else []
            if not rules:
                made.append(Row(method=method, rule=None, subject=None))
            for rule in rules:
                made += [Row(method=method, rule=rule, subject=subject) for subject in self.subjects[rule.resource]]
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
        if "replay_only" in row.method.input.fields_by_name:
            made.replay_only = True
        return made.SerializeToString()


def forged(key: str) -> str:
    """A well-formed key with the public id of another one, and a secret of its own."""
    other = make_secret(os.urandom)
    text = f"{key[:17]}{other.split('_')[2][:22]}"
    return text + checksum(text)
