"""The gate: every call passes here, and what no access rule allows is refused."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from google.protobuf.message import Message

from blobhub_server.blobtypes.access import ANONYMOUS, NOWHERE, Caller, Locator, Place, Resolution, Role
from blobhub_server.blobtypes.call import Call
from blobhub_server.errors import BlobHubError, PermissionDenied, Renamed, Unauthenticated
from blobhub_server.platform.admission.absence import Absence
from blobhub_server.platform.admission.authentication import Authentication, read_bearer
from blobhub_server.platform.admission.roles import Roles
from blobhub_server.platform.calls.answer import Answers
from blobhub_server.platform.calls.audit import Audit, audit_row
from blobhub_server.platform.calls.change import Changes
from blobhub_server.platform.rules import access
from blobhub_server.platform.rules import reference as grammar
from blobhub_server.platform.rules.access import Permission
from blobhub_server.rpc.access_options import AccessRule, ResourceRule
from blobhub_server.rpc.gate import Metadata
from blobhub_server.rpc.room import Sender, address_of

TOPIC = "access"
"""The doorbell that is rung when somebody loses access."""

_REFUSALS = frozenset({"UNAUTHENTICATED", "PERMISSION_DENIED"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """Implements `rpc.pipeline.Gate` by the methods' access rules."""

    authentication: Authentication
    roles: Roles
    answers: Answers
    changes: Changes
    audit: Audit
    rules: Mapping[str, AccessRule]
    locators: Mapping[str, Locator]
    absence: Absence

    def screen(self, metadata: Metadata) -> None:
        """Check the form of the key that a call came with, before its request is decoded. Raises Unauthenticated."""
        self.authentication.require_form(read_bearer(metadata))

    def known_sender(self, metadata: Metadata) -> Sender | None:
        """The caller who was found by a call's key or token a moment ago, if one was."""
        try:
            caller = self.authentication.cached_caller(read_bearer(metadata))
        except Unauthenticated:
            return None
        return Sender(name=caller.identity, known=True) if caller is not None and caller.identity else None

    async def sender(self, metadata: Metadata, peer: str) -> Sender:
        """Who sends a call: its caller, or, when nothing identifies one, whoever is at the peer's address."""
        try:
            return _sender(await self.authentication.caller(read_bearer(metadata)), peer)
        except BlobHubError:
            return _sender(ANONYMOUS, peer)

    def arrive(self, method: str, request: Message, metadata: Metadata) -> Admission:
        """The admission of a call, about to begin."""
        rule = self.rules[method]
        call = Call[object](
            method=method, request=request, resource=None, changes=self.changes, reference=_reference(rule, request)
        )
        return Admission(self, rule, metadata, call)

    def lister(self, kind: str) -> str:
        """The name of the method that lists things of a kind, such as `ListSessions`; empty when there is none."""
        name = f"List{''.join(word.capitalize() for word in kind.split('_'))}s"
        return name if any(path.endswith(f"/{name}") for path in self.rules) else ""


class Admission:
    """Implements `rpc.pipeline.Admission`: lets one call in, or raises.

    The order of refusals is: an invalid key; a malformed reference; a request id that was used for another request; no key
    where one is needed; and then, for one resource after the other: absent or invisible, which is one answer; a role that is
    too weak; absent in a place that the caller may see. The pipeline validates the request before the references.
    """

    __slots__ = ("_arrived", "_bearer", "_call", "_found", "_gate", "_hidden", "_malformed", "_metadata", "_rule")

    def __init__(self, gate: Gate, rule: AccessRule, metadata: Metadata, call: Call[object]) -> None:
        self._arrived = asyncio.get_running_loop().time()
        self._gate = gate
        self._rule = rule
        self._metadata = metadata
        self._call = call
        self._bearer = ""
        self._malformed = False
        self._hidden = False
        self._found: list[Resolution[object]] = []

    async def answer(self, make: Callable[[Call[object]], Awaitable[bytes]]) -> bytes:
        """What `make` answers to the call, or the answer that is remembered for the same request.

        That is looked up before references are resolved, because they may lead elsewhere by now: after a commit whose answer
        was lost, `acme/pipeline@draft` does not exist any more.
        """
        self._check_references()

        async def admitted() -> bytes:
            await self._locate()
            return await make(self._call)

        return await self._gate.answers.first_answer(self._call, admitted, bytes)

    async def admit(self) -> Call[object]:
        """Admit a call that is answered with a stream. A repeated one is admitted anew; its handler asks for the answer."""
        self._check_references()
        await self._gate.answers.find(self._call)
        await self._locate()
        return self._call

    async def identify(self) -> None:
        """Find the caller. Raises Unauthenticated, IssuerUnavailable."""
        call = self._call
        try:
            self._bearer = read_bearer(self._metadata)
            call.caller = await self._gate.authentication.caller(self._bearer)
        except Unauthenticated as error:
            self._malformed = error.malformed
            if isinstance(error.claimed, Caller):
                call.caller = error.claimed
            raise

    def _check_references(self) -> None:
        """Raise InvalidReference for a reference that does not follow the grammar, whatever it may lead to."""
        request = self._call.request
        for resource in self._rule.resources:
            grammar.parse_if_known(resource.kind, resource.field, resource.reference(request))
        for field, kind in self._rule.references.items():
            if text := getattr(request, field):
                grammar.parse(kind, field, text)

    async def _locate(self) -> None:
        """Find and authorize every resource that the request names, one after the other."""
        call, rule = self._call, self._rule
        access.require_caller(call.caller, Permission(rule.permission), public_read=rule.public_read)
        for resource in rule.resources:
            self._found.append(await self._resolve(resource))
        call.reference = _reference(rule, call.request)
        if self._found:
            call.resource, *call.further_resources = [resolved.resource for resolved in self._found]

    async def _resolve(self, resource: ResourceRule) -> Resolution[object]:
        """A resource that the caller may use. The same is done for what is absent as for what is hidden."""
        gate, call = self._gate, self._call
        value = resource.reference(call.request)
        call.reference = (resource.kind, value)
        resolved = await gate.locators[resource.kind](value, call.caller)
        place = NOWHERE if resolved is None else resolved.place
        if resource.kind not in grammar.KINDS and not await gate.roles.is_there(place):
            # The kinds that the grammar knows are found by the row of their blob or organization, all others by their own,
            # which is there until it is collected.
            resolved, place = None, NOWHERE
        role = await gate.roles.held_role(call.caller, place)
        if not self._found:
            call.place, call.role = place, role
        works = resource.worker and access.works_at(call.caller, place)
        if resolved is None or (not works and access.is_hidden(role, public=place.public, seen_by=resolved.seen_by)):
            raise await self._refusal(resource)
        if not works:
            self._require(role, place, resource)
        if isinstance(resolved.resource, BlobHubError):
            raise await gate.absence.in_blob(call.caller, place, resolved.resource, lister=gate.lister(resource.kind))
        return resolved

    async def _refusal(self, resource: ResourceRule) -> BlobHubError:
        """The error for a resource that does not exist, or that the caller may not see."""
        call = self._call
        reference = resource.reference(call.request)
        gate, kind = self._gate, resource.kind
        error, parent = await gate.absence.refusal(
            call.caller, kind, reference, since=self._arrived, lister=gate.lister(kind)
        )
        self._hidden = not isinstance(error, Renamed)
        if call.place is NOWHERE:
            # The entry in the audit log is then as that of a thing which is hidden there, and takes as long to write.
            call.place = parent
        return error

    def _require(self, role: Role, place: Place, resource: ResourceRule) -> None:
        """Check the role on a resource that the caller may see."""
        permission, name = Permission(resource.permission), resource.reference(self._call.request)
        try:
            access.require_role(role, place, permission, public_read=resource.public_read, name=name)
        except PermissionDenied as error:
            raise access.refusal_for(self._call.caller, error) from None

    @property
    def changes(self) -> bool:
        """Whether the call makes a change."""
        return self._rule.changes

    @property
    def expire_time(self) -> datetime | None:
        """When the key or token that the call came with stops working."""
        return self._call.caller.expire_time

    def sender(self, peer: str) -> Sender:
        """Who made the call: its caller, or, when nothing identifies one, whoever is at the peer's address."""
        return _sender(self._call.caller, peer)

    @property
    def last_sequence(self) -> int | None:
        """The number of the last event that a watch has handed to the call's stream."""
        return self._call.last_sequence

    async def recheck(self) -> None:
        """Raise the error that a stream would be refused with now, for the resources it was admitted to."""
        gate, rule, call = self._gate, self._rule, self._call
        # The caller is replaced, because rotating a key changes its expire time.
        caller = call.caller = await gate.authentication.authenticate(self._bearer)
        access.require_caller(caller, Permission(rule.permission), public_read=rule.public_read)
        for resource, before in zip(rule.resources, self._found, strict=True):
            now = await gate.roles.current_place(before.place)
            place = NOWHERE if now is None else replace(now, queue=before.place.queue)
            if resource.worker and access.works_at(caller, place):
                continue
            role = await gate.roles.held_role(caller, place)
            public = place.public and not before.never_public
            if now is None or access.is_hidden(role, public=public, seen_by=before.seen_by):
                raise await self._refusal(resource)
            self._require(role, place, resource)

    async def record_failure(self, error: BlobHubError, *, handled: bool) -> None:
        """Record the call in the audit log when it was refused, or when its handler failed to make a change.

        A thing that is absent is a refusal as well, because what the caller may not see is answered in the same way.
        Malformed keys are not recorded, because such a call must not touch the database.
        """
        refused = (error.code in _REFUSALS or self._hidden) and not self._malformed
        failed = not refused and error.code not in _REFUSALS and handled and self._rule.changes and not self._call.recorded
        if refused or failed:
            await self._gate.audit.record_refusal(audit_row(self._call, error=error))


def _sender(caller: Caller, peer: str) -> Sender:
    return Sender(name=caller.identity or address_of(peer), known=bool(caller.identity))


def _reference(rule: AccessRule, request: Message) -> tuple[str, str]:
    """The kind of the main resource that a request names, and what it says; empty for none."""
    if not rule.resources:
        return "", ""
    return rule.resources[0].kind, rule.resources[0].reference(request)
