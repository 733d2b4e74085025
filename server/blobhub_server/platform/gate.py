"""Admission: who is calling, what about, and may they. Every call passes here; what no rule allows is refused."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from blobhub.v1 import access_pb2
from google.protobuf.message import Message

from blobhub_server.blobtypes.contract import Located, Locator
from blobhub_server.clock import Clock
from blobhub_server.db.engine import Database
from blobhub_server.errors import BlobHubError, PermissionDenied, Unauthenticated
from blobhub_server.platform.calls import CALL, Call, answered_before
from blobhub_server.platform.rules import api_key as key_rules
from blobhub_server.platform.rules.access import ANONYMOUS, Caller, Role, effective
from blobhub_server.platform.store import api_key as key_store
from blobhub_server.platform.store import user as user_store
from blobhub_server.rpc.access_options import Rule

KEPT_SECONDS = 0.5
"""How long a key that held is believed to hold. A revoked one is refused within a second."""
_KEPT_KEYS = 4096

_NEEDED = {
    access_pb2.PERMISSION_READ: Role.READ,
    access_pb2.PERMISSION_WRITE: Role.WRITE,
    access_pb2.PERMISSION_ADMIN: Role.ADMIN,
}


class Gate:
    """Implements `rpc.pipeline.Admit` by the methods' access rules."""

    def __init__(self, db: Database, clock: Clock, rules: Mapping[str, Rule], locators: Mapping[str, Locator]) -> None:
        self._db = db
        self._clock = clock
        self._rules = rules
        self._locators = locators
        self._believed: OrderedDict[str, tuple[float, Caller]] = OrderedDict()

    async def __call__(self, method: str, request: Message, context: Any) -> bytes | None:
        """Admit a call, or raise.

        Answers the bytes of the first answer when the caller has made the very same request before. The order of
        refusals is: a key that does not hold; no key where one is needed; a reference that cannot be read; a resource
        that is absent or not the caller's (one answer for both); a thing that is absent in what the caller may see.
        """
        rule = self._rules[method]
        caller = await self._caller(context.invocation_metadata())
        if caller.anonymous and rule.permission != access_pb2.PERMISSION_ANYONE and not rule.public_read:
            raise Unauthenticated
        CALL.set(Call(method, caller, None))
        before = await answered_before(self._db, caller, method, request)
        if before is not None:
            return before
        if rule.permission == access_pb2.PERMISSION_USER and caller.user_id is None:
            raise PermissionDenied
        if rule.permission in _NEEDED:
            CALL.set(Call(method, caller, await self._located(rule, caller, getattr(request, rule.field))))
        return None

    async def _located(self, rule: Rule, caller: Caller, value: str) -> Located:
        found = None if "\0" in value else await self._locators[rule.resource](value)
        if found is None:
            raise PermissionDenied
        public_read = rule.public_read and found.public
        membership = await self._membership(caller, found)
        role = effective(caller, org_id=found.org_id, blob_id=found.blob_id, membership=membership, public_read=public_read)
        if role < _NEEDED[rule.permission]:
            raise PermissionDenied
        if isinstance(found.resource, BlobHubError):
            raise found.resource
        return found

    async def _membership(self, caller: Caller, found: Located) -> Role:
        if caller.user_id is None or caller.administrator:
            return Role.NONE
        resources = [found.org_id, *([found.blob_id] if found.blob_id else [])]
        async with self._db.read() as tx:
            return await user_store.membership(tx, caller.user_id, resources)

    async def _caller(self, metadata: Any) -> Caller:
        """Who sent the metadata. Raises Unauthenticated for a key that does not hold, or for two different ones."""
        keys = set()
        for name, value in metadata or ():
            if name == "authorization":
                scheme, _, key = value.partition(" ")
                keys.add(key.strip() if scheme.lower() == "bearer" else "")
            elif name == "x-api-key":
                keys.add(value)
        if not keys:
            return ANONYMOUS
        if len(keys) > 1:
            raise Unauthenticated
        return await self._holder(keys.pop())

    async def _holder(self, key: str) -> Caller:
        now = time.monotonic()
        believed = self._believed.get(key)
        if believed is not None and believed[0] > now:
            return believed[1]
        caller = await self._authenticate(key)
        self._believed[key] = (now + KEPT_SECONDS, caller)
        self._believed.move_to_end(key)
        if len(self._believed) > _KEPT_KEYS:
            self._believed.popitem(last=False)
        return caller

    async def _authenticate(self, key: str) -> Caller:
        parsed = key_rules.parse(key)
        if parsed is None:
            raise Unauthenticated
        public_id, secret_hash = parsed
        async with self._db.read() as tx:
            record = await key_store.by_public_id(tx, public_id)
            if record is None or not key_rules.matches(record, secret_hash) or not record.valid(self._clock()):
                raise Unauthenticated
            administrator = record.user_id is not None and await user_store.is_administrator(tx, record.user_id)
        return Caller(
            key_id=record.id,
            user_id=record.user_id,
            org_id=record.org_id,
            blob_id=record.blob_id,
            role=record.role,
            administrator=administrator,
        )
