"""The gate: every call passes here, and what no access rule allows is refused."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from google.protobuf.message import Message

from blobhub_server.blobtypes.access import Caller, Locator, Place, Resolution, Role
from blobhub_server.blobtypes.call import Call
from blobhub_server.errors import BlobHubError, PermissionDenied, Unauthenticated
from blobhub_server.platform.admission.authentication import Authentication, read_bearer
from blobhub_server.platform.admission.roles import Roles
from blobhub_server.platform.calls.answer import Answers
from blobhub_server.platform.calls.audit import Audit, audit_row
from blobhub_server.platform.calls.change import Changes
from blobhub_server.platform.rules import access
from blobhub_server.platform.rules.access import Permission
from blobhub_server.rpc.access_options import AccessRule, ResourceRule
from blobhub_server.rpc.pipeline import Metadata

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

    def arrive(self, method: str, request: Message, metadata: Metadata) -> Admission:
        """The admission of a call, about to begin."""
        rule = self.rules[method]
        call = Call[object](
            method=method, request=request, resource=None, changes=self.changes, reference=_reference(rule, request)
        )
        return Admission(self, rule, metadata, call)


class Admission:
    """Implements `rpc.pipeline.Admission`: lets one call in, or raises.

    The order of refusals is: an invalid key; no key where one is needed; a request id that was used for another request; a
    malformed reference; a resource that is absent or invisible (one answer for both); a resource that is absent in a place
    that the caller may see.
    """

    __slots__ = ("_bearer", "_call", "_gate", "_malformed", "_metadata", "_places", "_rule")

    def __init__(self, gate: Gate, rule: AccessRule, metadata: Metadata, call: Call[object]) -> None:
        self._gate = gate
        self._rule = rule
        self._metadata = metadata
        self._call = call
        self._bearer = ""
        self._malformed = False
        self._places: list[Place] = []

    async def answer(self, make: Callable[[Call[object]], Awaitable[bytes]]) -> bytes:
        """What `make` answers to the call, or the answer that is remembered for the same request.

        That is looked up before references are resolved, because they may lead elsewhere by now: after a commit whose answer
        was lost, `acme/pipeline@draft` does not exist any more.
        """
        await self._identify()

        async def admitted() -> bytes:
            await self._locate()
            return await make(self._call)

        return await self._gate.answers.first_answer(self._call, admitted, bytes)

    async def admit(self) -> Call[object]:
        """Admit a call that is answered with a stream. A repeated one is admitted anew; its handler asks for the answer."""
        await self._identify()
        await self._gate.answers.find(self._call)
        await self._locate()
        return self._call

    async def _identify(self) -> None:
        """Find the caller."""
        call, rule = self._call, self._rule
        try:
            self._bearer = read_bearer(self._metadata)
            call.caller = await self._gate.authentication.caller(self._bearer)
        except Unauthenticated as error:
            self._malformed = error.malformed
            if isinstance(error.claimed, Caller):
                call.caller = error.claimed
            raise
        access.require_caller(call.caller, Permission(rule.permission), public_read=rule.public_read)

    async def _locate(self) -> None:
        """Find and authorize every resource that the request names. Absent ones are reported last."""
        gate, call = self._gate, self._call
        found: list[Resolution[object]] = []
        for resource in self._rule.resources:
            value = getattr(call.request, resource.field)
            call.reference = (resource.kind, value)
            resolved = None if "\0" in value else await gate.locators[resource.kind](value, call.caller)
            if resolved is None:
                raise PermissionDenied
            role = await gate.roles.held_role(call.caller, resolved.place)
            if not found:
                call.place, call.role = resolved.place, role
            _require(role, resolved.place, resource)
            found.append(resolved)
        call.reference = _reference(self._rule, call.request)
        for resolved in found:
            if isinstance(resolved.resource, BlobHubError):
                raise resolved.resource
        if found:
            call.resource, *call.further_resources = [resolved.resource for resolved in found]
        self._places = [resolved.place for resolved in found]

    @property
    def expire_time(self) -> datetime | None:
        """When the key or token that the call came with stops working."""
        return self._call.caller.expire_time

    async def recheck(self) -> None:
        """Raise the error that a stream would be refused with now, for the resources it was admitted to."""
        gate, rule, call = self._gate, self._rule, self._call
        # The caller is replaced, because rotating a key changes its expire time.
        caller = call.caller = await gate.authentication.authenticate(self._bearer)
        access.require_caller(caller, Permission(rule.permission), public_read=rule.public_read)
        for resource, place in zip(rule.resources, self._places, strict=True):
            now = await gate.roles.current_place(place)
            if now is None:
                raise PermissionDenied
            _require(await gate.roles.held_role(caller, now), now, resource)

    async def record_failure(self, error: BlobHubError, *, handled: bool) -> None:
        """Record the call in the audit log when it was refused, or when its handler failed to make a change.

        Malformed keys are not recorded, because such a call must not touch the database.
        """
        refused = error.code in _REFUSALS and not self._malformed
        failed = error.code not in _REFUSALS and handled and self._rule.changes and not self._call.recorded
        if refused or failed:
            await self._gate.audit.record_refusal(audit_row(self._call, error=error))


def _require(role: Role, place: Place, resource: ResourceRule) -> None:
    access.require_role(role, place, Permission(resource.permission), public_read=resource.public_read)


def _reference(rule: AccessRule, request: Message) -> tuple[str, str]:
    """The kind of the main resource that a request names, and what it says; empty for none."""
    if not rule.resources:
        return "", ""
    return rule.resources[0].kind, getattr(request, rule.resources[0].field)
