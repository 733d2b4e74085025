"""CallerService on the wire."""

from __future__ import annotations

import asyncio

from blobhub.v1 import access_pb2
from blobhub.v1 import caller_pb2 as pb

from blobhub_server.blobtypes.access import NOWHERE, Caller, Place, Role
from blobhub_server.blobtypes.call import Call
from blobhub_server.db.engine import Database
from blobhub_server.errors import Renamed
from blobhub_server.platform.admission.absence import Absence
from blobhub_server.platform.admission.locators import Locators
from blobhub_server.platform.admission.roles import Roles
from blobhub_server.platform.rules import access
from blobhub_server.platform.store import caller as store
from blobhub_server.rpc.wire import to_timestamp

MAX_ROLES = 1000


class CallerService:
    """Shows callers who they are to the server."""

    def __init__(self, db: Database, locators: Locators, roles: Roles, absence: Absence) -> None:
        self._db = db
        self._locators = locators
        self._roles = roles
        self._absence = absence

    async def GetCaller(self, request: pb.GetCallerRequest, call: Call[None]) -> pb.GetCallerResponse:
        who = call.caller
        roles = await self._role_on(who, request.parent) if request.parent else await self._all_roles(who)
        return pb.GetCallerResponse(caller=to_proto(who), roles=roles)

    async def _role_on(self, who: Caller, parent: str) -> list[pb.EffectiveRole]:
        """The role on one organization or blob. Raises Renamed, but only to callers who hold a role there."""
        since = asyncio.get_running_loop().time()
        found = await self._locators.organization_or_blob(parent, who)
        place = NOWHERE if found is None else found.place
        role = max(await self._roles.held_role(who, place), Role.READ if place.public else Role.NONE)
        if found is None or role is Role.NONE:
            # The same for what is absent and what is hidden, so that the answer takes the same time.
            refusal, _ = await self._absence.refusal(who, "organization_or_blob", parent, since=since)
            if isinstance(refusal, Renamed):
                raise refusal
            return []
        async with self._db.read() as tx:
            return [to_role(place, await store.reference(tx, place), role)]

    async def _all_roles(self, who: Caller) -> list[pb.EffectiveRole]:
        """The roles of the caller's memberships or key, read in one statement."""
        async with self._db.read() as tx:
            if who.user_id is not None:
                memberships = await store.memberships(tx, who.user_id, MAX_ROLES)
                return [
                    to_role(place, reference, access.held_role(who, place, role)) for place, reference, role in memberships
                ]
            if who.organization_id is None or who.role is Role.NONE:
                return []
            place = Place(organization_id=who.organization_id, blob_id=who.blob_id)
            return [to_role(place, await store.reference(tx, place), who.role)]


def to_role(place: Place, reference: str, role: Role) -> pb.EffectiveRole:
    """A role on a place as its message."""
    return pb.EffectiveRole(
        organization_id=place.organization_id,
        blob_id=place.blob_id or "",
        reference=reference,
        role=access_pb2.Role.ValueType(int(role)),
    )


def to_proto(who: Caller) -> pb.Caller:
    """A caller as its message."""
    return pb.Caller(
        user_id=who.user_id or "",
        user_name=who.user_name,
        api_key_id=who.key_id or "",
        parent_id=who.blob_id or who.organization_id or "",
        role=access_pb2.ROLE_WORKER if who.queues else access_pb2.Role.ValueType(int(who.role)),
        queue_names=sorted(who.queues),
        anonymous=who.anonymous,
        administrator=who.administrator,
        expire_time=to_timestamp(who.expire_time) if who.expire_time else None,
    )
