"""CallerService on the wire."""

from __future__ import annotations

from typing import Any

from blobhub.v1 import access_pb2
from blobhub.v1 import caller_pb2 as pb
from blobhub.v1 import caller_pb2_grpc as rpc

from blobhub_server.blobtypes.contract import Located
from blobhub_server.db.engine import Database
from blobhub_server.errors import BlobHubError
from blobhub_server.platform.calls import caller
from blobhub_server.platform.locators import Locators
from blobhub_server.platform.roles import Roles
from blobhub_server.platform.rules.access import Caller, Role
from blobhub_server.platform.store import blob as blob_store
from blobhub_server.platform.store import member as member_store
from blobhub_server.platform.store import organization as organization_store
from blobhub_server.rpc.wire import to_timestamp

MOST = 1000


class CallerService(rpc.CallerServiceServicer):
    """Tells a caller who the server takes it for."""

    def __init__(self, db: Database, locators: Locators, roles: Roles) -> None:
        self._db = db
        self._locators = locators
        self._roles = roles

    async def GetCaller(self, request: pb.GetCallerRequest, context: Any) -> pb.GetCallerResponse:
        """See caller.proto."""
        who = caller()
        places = await self._asked(request.scope) if request.scope else await self._everywhere(who)
        roles = [await self._role(who, place) for place in places]
        return pb.GetCallerResponse(caller=to_proto(who), roles=[role for role in roles if role.role])

    async def _asked(self, scope: str) -> list[Located]:
        found = await self._locators.scope(scope)
        return [] if found is None or isinstance(found.resource, BlobHubError) else [found]

    async def _everywhere(self, who: Caller) -> list[Located]:
        """The places that the caller's memberships, or its key, are for."""
        if who.user_id is None:
            return [Located(who.org_id, who.blob_id, False, None)] if who.org_id else []
        async with self._db.read() as tx:
            held = await member_store.of_user(tx, who.user_id, MOST)
        return [Located(member.org_id, member.blob_id, False, None) for member in held]

    async def _role(self, who: Caller, place: Located) -> pb.EffectiveRole:
        role = await self._roles.held(who, place)
        if place.public:
            role = max(role, Role.READ)
        async with self._db.read() as tx:
            organization = await organization_store.find(tx, id_=place.org_id)
            blob = await blob_store.get(tx, place.blob_id) if place.blob_id else None
        names = [item.alias for item in (organization, blob) if item is not None]
        return pb.EffectiveRole(
            org_id=place.org_id,
            blob_id=place.blob_id or "",
            reference="/".join(names),
            role=access_pb2.Role.ValueType(int(role)),
        )


def to_proto(who: Caller) -> pb.Caller:
    """A caller as its message."""
    return pb.Caller(
        user_id=who.user_id or "",
        user_name=who.user_name,
        api_key_id=who.key_id or "",
        scope_id=who.blob_id or who.org_id or "",
        role=access_pb2.Role.ValueType(int(who.role)),
        anonymous=who.anonymous,
        administrator=who.administrator,
        expire_time=to_timestamp(who.expire_time) if who.expire_time else None,
    )
