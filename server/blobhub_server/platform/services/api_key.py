"""ApiKeyService on the wire."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from blobhub.v1 import access_pb2
from blobhub.v1 import api_key_pb2 as pb
from blobhub.v1 import api_key_pb2_grpc as rpc

from blobhub_server.blobtypes.contract import Host
from blobhub_server.db.engine import Transaction
from blobhub_server.errors import InvalidValue
from blobhub_server.platform.calls import located
from blobhub_server.platform.rules import api_key as rules
from blobhub_server.platform.rules.access import Role
from blobhub_server.platform.rules.api_key import ApiKey
from blobhub_server.platform.store import api_key as store
from blobhub_server.rpc.paging import Page
from blobhub_server.rpc.wire import to_timestamp


def to_proto(key: ApiKey) -> pb.ApiKey:
    """A key's record as its message."""
    return pb.ApiKey(
        id=key.id,
        org_id=key.org_id or "",
        blob_id=key.blob_id or "",
        user_id=key.user_id or "",
        role=access_pb2.Role.ValueType(int(key.role)),
        description=key.description,
        create_time=to_timestamp(key.create_time),
        expire_time=to_timestamp(key.expire_time) if key.expire_time else None,
        revoke_time=to_timestamp(key.revoke_time) if key.revoke_time else None,
    )


class ApiKeyService(rpc.ApiKeyServiceServicer):
    """Makes, lists and revokes API keys."""

    def __init__(self, host: Host, entropy: Callable[[int], bytes]) -> None:
        self._host = host
        self._entropy = entropy

    async def CreateApiKey(self, request: pb.CreateApiKeyRequest, context: Any) -> pb.CreateApiKeyResponse:
        """See api_key.proto. The answer that is remembered for the request id is the one without the key."""
        expire_time = self._expire_time(request)
        secret = rules.make_secret(self._entropy)
        made_now = False

        async def make(tx: Transaction) -> pb.CreateApiKeyResponse:
            nonlocal made_now
            record = self._new(request, secret, expire_time)
            await store.insert(tx, record)
            made_now = True
            return pb.CreateApiKeyResponse(api_key=to_proto(record))

        answer = await self._host.calls.once(request, pb.CreateApiKeyResponse, make)
        if made_now:
            answer.key = secret
        return answer

    def _new(self, request: pb.CreateApiKeyRequest, secret: str, expire_time: datetime | None) -> ApiKey:
        parsed = rules.parse(secret)
        assert parsed is not None, "we have just made it"
        scope = located()
        return ApiKey(
            id=self._host.ids(),
            public_id=parsed[0],
            secret_hash=parsed[1],
            user_id=None,
            org_id=scope.org_id,
            blob_id=scope.blob_id,
            role=Role(request.role),
            description=request.description,
            create_time=self._host.clock(),
            expire_time=expire_time,
            revoke_time=None,
        )

    def _expire_time(self, request: pb.CreateApiKeyRequest) -> datetime | None:
        if not request.HasField("expire_time"):
            return None
        try:
            expire_time = request.expire_time.ToDatetime(UTC)
        except (ValueError, OverflowError):
            raise InvalidValue("expire_time", "is not a time between the years 1 and 9999") from None
        if expire_time <= self._host.clock():
            raise InvalidValue("expire_time", "must be in the future")
        return expire_time

    async def ListApiKeys(self, request: pb.ListApiKeysRequest, context: Any) -> pb.ListApiKeysResponse:
        """See api_key.proto."""
        scope = located()
        page = Page.parse(request, scope.org_id, scope.blob_id or "")
        async with self._host.db.read() as tx:
            found = await store.page(tx, scope.org_id, scope.blob_id, after=page.after, limit=page.limit + 1)
        items, token = page.cut(found, lambda key: key.id)
        return pb.ListApiKeysResponse(api_keys=map(to_proto, items), next_page_token=token)

    async def RevokeApiKey(self, request: pb.RevokeApiKeyRequest, context: Any) -> pb.RevokeApiKeyResponse:
        """See api_key.proto."""
        key: ApiKey = located().resource
        now = self._host.clock()
        async with self._host.db.write() as tx:
            await store.revoke(tx, key.id, now)
            current = await store.get(tx, key.id)
        return pb.RevokeApiKeyResponse(api_key=to_proto(current or replace(key, revoke_time=now)))
