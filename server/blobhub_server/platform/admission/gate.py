"""Admission: who is calling, what about, and may they. Every call passes here; what no rule allows is refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from google.protobuf.message import Message

from blobhub_server.blobtypes.contract import Located, Locator
from blobhub_server.db.engine import Database
from blobhub_server.errors import BlobHubError, PermissionDenied, Unauthenticated
from blobhub_server.platform.admission.authentication import Authentication, presented
from blobhub_server.platform.admission.roles import Roles
from blobhub_server.platform.answers import Answers, Remembered
from blobhub_server.platform.audit import Audit, entry_of
from blobhub_server.platform.calls import CALL, Call
from blobhub_server.platform.rules import access
from blobhub_server.platform.rules.access import Caller, Permission, Role
from blobhub_server.platform.store import blob as blob_store
from blobhub_server.platform.store import organization as organization_store
from blobhub_server.rpc.access_options import Resource, Rule

TOPIC = "access"
"""The doorbell that is rung when somebody may no longer do what they could."""

_REFUSALS = frozenset({"UNAUTHENTICATED", "PERMISSION_DENIED"})


@dataclass(frozen=True, slots=True)
class Admitted:
    """Implements `rpc.guard.Admission`: what let a call in, and whether it still would."""

    gate: Gate
    rule: Rule
    presented: str
    call: Call
    answer: bytes | None = None

    @property
    def expire_time(self) -> datetime | None:
        """See Admission."""
        return self.call.caller.expire_time

    async def recheck(self) -> None:
        """See Admission."""
        await self.gate.recheck(self)

    async def meanwhile(self) -> bytes | None:
        """See Admission."""
        return await self.gate.meanwhile(self.call)


class Gate:
    """Implements `rpc.pipeline.Gate` by the methods' access rules."""

    def __init__(
        self,
        db: Database,
        authentication: Authentication,
        answers: Answers,
        audit: Audit,
        roles: Roles,
        rules: Mapping[str, Rule],
        locators: Mapping[str, Locator],
    ) -> None:
        self._db = db
        self._authentication = authentication
        self._answers = answers
        self._audit = audit
        self._roles = roles
        self._rules = rules
        self._locators = locators

    async def admit(self, method: str, request: Message, context: Any) -> Admitted:
        """Admit a call, or raise.

        What is admitted has the bytes of the first answer when the caller has made the very same request before; a stream
        of answers goes on from there, so its caller has to be let in all the same. The order of refusals is: a key that
        does not hold; no key where one is needed; a reference that cannot be read; a resource that is absent or not the
        caller's (one answer for both); a thing that is absent in what the caller may see.
        """
        rule = self._rules[method]
        call = _call(method, rule, request)
        CALL.set(call)
        try:
            key = presented(context.invocation_metadata())
            call.caller = await self._authentication.caller(key)
        except Unauthenticated as error:
            call.malformed = error.malformed
            if isinstance(error.claimed, Caller):
                call.caller = error.claimed
            raise
        access.require_caller(call.caller, Permission(rule.permission), public_read=rule.public_read)
        before = await self._answers.before(call.caller, method, request)
        if before is not None and not rule.streams:
            await self._require_readable(call, before)
            return self._again(rule, key, call, before)
        if rule.resources:
            try:
                await self._locate(call, rule, request)
            except BlobHubError:
                # Of a request that was sent twice at once, the other may have changed what the reference leads to.
                before = None if rule.streams else await self._answers.before(call.caller, method, request)
                if before is None:
                    raise
                return self._again(rule, key, call, before)
        return Admitted(self, rule, key, call)

    def _again(self, rule: Rule, key: str, call: Call, before: Remembered) -> Admitted:
        call.recorded = True
        return Admitted(self, rule, key, call, before.answer)

    async def _require_readable(self, call: Call, before: Remembered) -> None:
        """An answer is given again to those who may still read where it came from. Raises PermissionDenied.

        What is gone is told to whom it was told before, as the answer to a deletion has to be; and an answer without
        anything in it, as to the removal of oneself, tells nothing.
        """
        if before.place is None or not before.answer:
            return
        try:
            place = await self._today(before.place)
        except PermissionDenied:
            return
        call.located = place
        role = await self._roles.held(call.caller, place)
        access.require_role(role, place, Permission.READ, public_read=False)

    async def meanwhile(self, call: Call) -> bytes | None:
        """What a call's very same request, sent at the same time, has been answered since. Raises RequestIdReused."""
        before = await self._answers.before(call.caller, call.method, call.request)
        call.recorded = call.recorded or before is not None
        return None if before is None else before.answer

    async def _locate(self, call: Call, rule: Rule, request: Message) -> None:
        """Find every resource that the request names, and see that the caller may. What is absent is told last."""
        found: list[Located] = []
        for resource in rule.resources:
            value = getattr(request, resource.field)
            call.resource = (resource.kind, value)
            located = None if "\0" in value else await self._locators[resource.kind](value)
            if located is None:
                raise PermissionDenied
            role = await self._roles.held(call.caller, located)
            if not found:
                call.located, call.role = located, role
            _require(role, located, resource)
            found.append(located)
        call.also = found[1:]
        call.resource = _named(rule, request)
        for located in found:
            if isinstance(located.resource, BlobHubError):
                raise located.resource

    async def recheck(self, admitted: Admitted) -> None:
        """Raise what a stream would be refused with now, its resources being those it was admitted to."""
        rule, call = admitted.rule, admitted.call
        # A key that was rotated meanwhile ends at another time than it did.
        caller = call.caller = await self._authentication.afresh(admitted.presented)
        access.require_caller(caller, Permission(rule.permission), public_read=rule.public_read)
        if call.located is None:
            return
        for resource, located in zip(rule.resources, (call.located, *call.also), strict=True):
            place = await self._today(located)
            _require(await self._roles.held(caller, place), place, resource)

    async def _today(self, place: Located) -> Located:
        """The same place as it is now. Raises PermissionDenied when it is gone."""
        async with self._db.read() as tx:
            if place.blob_id:
                blob = await blob_store.get(tx, place.blob_id)
                if blob is None:
                    raise PermissionDenied
                return Located(blob.org_id, blob.id, blob.public, blob)
            if place.org_id:
                organization = await organization_store.find(tx, id_=place.org_id)
                if organization is None:
                    raise PermissionDenied
                return Located(organization.id, None, organization.public, organization)
        return place

    async def refused(self, error: BlobHubError, *, handled: bool) -> None:
        """Record the current call in the audit log, when it was refused, or its handler failed to change something.

        A key that cannot be one is not recorded: such a call touches no database.
        """
        call = CALL.get(None)
        if call is None:
            return
        refused = error.code in _REFUSALS and not call.malformed
        failed = error.code not in _REFUSALS and handled and call.changes and not call.recorded
        if not refused and not failed:
            return
        entry = entry_of(call.caller, call.located, call.method, call.resource, call.request, error=error)
        await self._audit.refused(entry)


def _require(role: Role, place: Located, resource: Resource) -> None:
    access.require_role(role, place, Permission(resource.permission), public_read=resource.public_read)


def _call(method: str, rule: Rule, request: Message) -> Call:
    return Call(method, rule.changes, request, _named(rule, request))


def _named(rule: Rule, request: Message) -> tuple[str, str]:
    """The kind of the main resource that a request names, and what it says; empty for none."""
    if not rule.resources:
        return "", ""
    return rule.resources[0].kind, getattr(request, rule.resources[0].field)
