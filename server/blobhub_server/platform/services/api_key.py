"""ApiKeyService on the wire."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from blobhub.v1 import access_pb2
from blobhub.v1 import api_key_pb2 as pb

from blobhub_server.blobtypes.access import Caller, Role
from blobhub_server.blobtypes.call import Call
from blobhub_server.blobtypes.contract import Host
from blobhub_server.blobtypes.etag import require_etag
from blobhub_server.db.engine import Transaction
from blobhub_server.errors import InvalidValue, PermissionDenied
from blobhub_server.platform.admission import gate
from blobhub_server.platform.blobs.locks import lock_place
from blobhub_server.platform.rules import access
from blobhub_server.platform.rules import api_key as rules
from blobhub_server.platform.rules.api_key import ApiKey
from blobhub_server.platform.rules.blob import Blob
from blobhub_server.platform.rules.organization import Organization
from blobhub_server.platform.rules.user import User
from blobhub_server.platform.store import api_key as store
from blobhub_server.rpc.masks import changed_fields
from blobhub_server.rpc.paging import Page
from blobhub_server.rpc.wire import from_duration, to_timestamp


def to_proto(key: ApiKey) -> pb.ApiKey:
    """A key's record as its message."""
    return pb.ApiKey(
        id=key.id,
        public_id=key.public_id,
        organization_id=key.organization_id or "",
        blob_id=key.blob_id or "",
        user_id=key.user_id or "",
        role=access_pb2.ROLE_WORKER if key.queues else access_pb2.Role.ValueType(int(key.role)),
        description=key.description,
        create_time=to_timestamp(key.create_time),
        expire_time=to_timestamp(key.expire_time) if key.expire_time else None,
        revoke_time=to_timestamp(key.revoke_time) if key.revoke_time else None,
        last_used_time=to_timestamp(key.last_used_time) if key.last_used_time else None,
        etag=key.etag,
        queue_names=key.queues,
    )


class ApiKeyService:
    """Makes, lists, changes, rotates and revokes API keys."""

    def __init__(self, host: Host, entropy: Callable[[int], bytes]) -> None:
        self._host = host
        self._entropy = entropy

    async def CreateApiKey(
        self, request: pb.CreateApiKeyRequest, call: Call[Organization | Blob | User]
    ) -> pb.CreateApiKeyResponse:
        # The remembered answer leaves out the key: a key is shown once.
        place, worker, queues = call.place, request.role == access_pb2.ROLE_WORKER, sorted({*request.queue_names})
        role = Role.NONE if worker else Role(request.role)
        expire_time = self._expire_time(request, call.caller)
        access.require_key_role(place, role)
        access.require_worker_queues(place, queues, worker=worker)
        access.require_lifetime(call.caller, expire_time)
        secret = rules.make_secret(self._entropy)

        async def make(tx: Transaction) -> pb.CreateApiKeyResponse:
            await lock_place(tx, place)
            now = self._host.clock()
            record = rules.new_key(
                secret,
                id=self._host.ids(),
                user_id=place.user_id,
                organization_id=place.organization_id or None,
                blob_id=place.blob_id,
                role=role,
                description=request.description,
                now=now,
                expire_time=expire_time,
                etag=self._host.ids(),
                queues=queues,
            )
            await store.insert(tx, record)
            await self._require_room(tx, record, now)
            return pb.CreateApiKeyResponse(api_key=to_proto(record))

        answer = await call.once(make)
        answer.key = secret
        return answer

    async def _require_room(self, tx: Transaction, record: ApiKey, now: datetime) -> None:
        """Raise LimitExceeded when the new key is one too many for its user or organization."""
        if record.user_id is not None:
            rules.require_room(record.user_id, await store.count_personal(tx, record.user_id, now))
        elif record.organization_id is not None:
            held = await store.count(tx, record.organization_id, now)
            await self._host.limits.require(
                tx, "organization.api_keys", organization_id=record.organization_id, blob_id="", held=held
            )

    def _expire_time(self, request: pb.CreateApiKeyRequest, caller: Caller) -> datetime | None:
        """When the new key expires: as requested, else with the caller's own key or token. Raises InvalidValue."""
        if not request.HasField("expire_time"):
            return caller.expire_time
        try:
            expire_time = request.expire_time.ToDatetime(UTC)
        except (ValueError, OverflowError):
            raise InvalidValue("expire_time", "is not a time between the years 1 and 9999") from None
        if expire_time <= self._host.clock():
            raise InvalidValue("expire_time", "must be in the future")
        return expire_time

    async def GetApiKey(self, request: pb.GetApiKeyRequest, call: Call[ApiKey]) -> pb.GetApiKeyResponse:
        return pb.GetApiKeyResponse(api_key=to_proto(call.resource))

    async def ListApiKeys(
        self, request: pb.ListApiKeysRequest, call: Call[Organization | Blob | User]
    ) -> pb.ListApiKeysResponse:
        place, order_by = call.place, request.order_by or "create_time"
        filters = (str(request.valid_only), order_by)
        page = Page.parse(request, place.user_id or "", place.organization_id, place.blob_id or "", *filters)
        valid_at = self._host.clock() if request.valid_only else None
        async with self._host.db.scan(call.caller.party) as tx:
            found = await store.page(tx, place, order_by=order_by, valid_at=valid_at, after=page.after, limit=page.limit + 1)
        items, token = await page.fill(found, lambda key: key.id, to_proto)
        return pb.ListApiKeysResponse(api_keys=items, next_page_token=token)

    async def UpdateApiKey(self, request: pb.UpdateApiKeyRequest, call: Call[ApiKey]) -> pb.UpdateApiKeyResponse:
        async def make(tx: Transaction) -> pb.UpdateApiKeyResponse:
            current = await self._lock(tx, call.resource.id)
            require_etag(request.etag, current.etag)
            changed = {field: getattr(request, field) for field in changed_fields(request, "description")}
            await store.update(tx, current.id, **changed, etag=self._host.ids())
            return pb.UpdateApiKeyResponse(api_key=to_proto(await self._lock(tx, call.resource.id)))

        return await call.once(make)

    async def RotateApiKey(self, request: pb.RotateApiKeyRequest, call: Call[ApiKey]) -> pb.RotateApiKeyResponse:
        secret = rules.make_secret(self._entropy)

        async def make(tx: Transaction) -> pb.RotateApiKeyResponse:
            await lock_place(tx, call.place)
            current, now = await self._lock(tx, call.resource.id), self._host.clock()
            require_etag(request.etag, current.etag)
            rules.require_valid(current, now)
            access.require_lifetime(call.caller, current.expire_time)
            record = rules.successor(current, secret, id=self._host.ids(), now=now, etag=self._host.ids())
            ends = rules.after_grace(current, now, from_duration(request.grace))
            await store.update(tx, current.id, expire_time=ends, etag=self._host.ids())
            await store.insert(tx, record)
            if ends > now:
                await self._require_room(tx, record, now)
            await self._host.bell.ring_after_commit(tx, [gate.TOPIC])
            return pb.RotateApiKeyResponse(
                api_key=to_proto(record), rotated=to_proto(await self._lock(tx, call.resource.id))
            )

        answer = await call.once(make)
        answer.key = secret
        return answer

    async def RevokeApiKey(self, request: pb.RevokeApiKeyRequest, call: Call[ApiKey]) -> pb.RevokeApiKeyResponse:
        async def make(tx: Transaction) -> pb.RevokeApiKeyResponse:
            current = await self._lock(tx, call.resource.id)
            if current.revoke_time is None:
                await store.update(tx, current.id, revoke_time=self._host.clock(), etag=self._host.ids())
                await self._host.bell.ring_after_commit(tx, [gate.TOPIC])
            return pb.RevokeApiKeyResponse(api_key=to_proto(await self._lock(tx, call.resource.id)))

        return await call.once(make)

    async def _lock(self, tx: Transaction, key_id: str) -> ApiKey:
        """Lock a key and return it as it is now. Raises PermissionDenied when it is gone."""
        current = await store.get(tx, key_id, lock=True)
        if current is None:
            raise PermissionDenied
        return current
