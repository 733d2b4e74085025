"""LimitService on the wire."""

from __future__ import annotations

from collections.abc import Sequence

from blobhub.v1 import limit_pb2 as pb

from blobhub_server.blobtypes.access import Place
from blobhub_server.blobtypes.call import Call
from blobhub_server.blobtypes.contract import Host, Limit
from blobhub_server.blobtypes.etag import require_etag
from blobhub_server.db.engine import Transaction
from blobhub_server.platform.admission.roles import Roles
from blobhub_server.platform.blobs.limits import Limits
from blobhub_server.platform.rules import limit as rules
from blobhub_server.platform.rules.blob import Blob
from blobhub_server.platform.rules.limit import LimitSetting, Rank
from blobhub_server.platform.rules.organization import Organization
from blobhub_server.platform.store import limit as store
from blobhub_server.rpc.masks import changed_fields

_SOURCES = {
    rules.DEFAULT: pb.LIMIT_SOURCE_DEFAULT,
    rules.ORGANIZATION: pb.LIMIT_SOURCE_ORGANIZATION,
    rules.BLOB: pb.LIMIT_SOURCE_BLOB,
}


def to_proto(limit: Limit, settings: Sequence[LimitSetting], held: int | None) -> pb.Limit:
    """A limit as its message."""
    holds = rules.effective(settings, limit.default)
    return pb.Limit(
        name=limit.name,
        description=limit.description,
        value=holds.value,
        held=held,
        source=_SOURCES[holds.source],
        etag=rules.etag(settings),
    )


def fixed_to_proto(limit: Limit, held: int) -> pb.Limit:
    """A limit that nobody sets, as its message."""
    return pb.Limit(
        name=limit.name, description=limit.description, value=limit.default, held=held, source=pb.LIMIT_SOURCE_FIXED
    )


class LimitService:
    """Shows and sets limits."""

    def __init__(self, host: Host, limits: Limits, roles: Roles) -> None:
        self._host = host
        self._limits = limits
        self._roles = roles

    async def GetLimits(self, request: pb.GetLimitsRequest, call: Call[Organization | Blob]) -> pb.GetLimitsResponse:
        place = call.place
        parent = call.resource
        async with self._host.db.scan(call.caller.party) as tx:
            settings = await store.get_all(tx, place.organization_id, place.blob_id or "")
            answered = [
                *[
                    to_proto(limit, settings[limit.name], await self._held(tx, parent, limit))
                    for limit in self._limits.settable_on(parent)
                ],
                *[fixed_to_proto(limit, await limit.held(tx, parent.id)) for limit in self._limits.fixed_on(parent)],
            ]
        return pb.GetLimitsResponse(limits=sorted(answered, key=lambda limit: limit.name))

    async def _held(self, tx: Transaction, parent: Organization | Blob, limit: Limit) -> int | None:
        """How much of a limit a parent holds; None for an organization's blobs, which would all have to be counted."""
        return await limit.held(tx, parent.id) if limit in self._limits.counted_in(parent) else None

    async def UpdateLimit(self, request: pb.UpdateLimitRequest, call: Call[Organization | Blob]) -> pb.UpdateLimitResponse:
        place, rank = call.place, await self._rank(call)
        limit, parent_id = self._limits.find(call.resource, request.name), call.resource.id

        async def make(tx: Transaction) -> pb.UpdateLimitResponse:
            await self._limits.lock(tx, organization_id=place.organization_id, blob_id=place.blob_id or "")
            settings = await store.get(tx, limit.name, place.organization_id, place.blob_id or "")
            require_etag(request.etag, rules.etag(settings))
            held = await self._held(tx, call.resource, limit)
            if not changed_fields(request, "value"):
                return pb.UpdateLimitResponse(limit=to_proto(limit, settings, held))
            if request.HasField("value"):
                rules.require_settable(
                    LimitSetting(source=_source(place), rank=rank, value=request.value), settings, limit.default
                )
            await store.delete(tx, parent_id, limit.name, rank)
            if request.HasField("value"):
                await store.put(tx, parent_id, limit.name, rank, request.value)
            now = await store.get(tx, limit.name, place.organization_id, place.blob_id or "")
            return pb.UpdateLimitResponse(limit=to_proto(limit, now, held))

        return await call.once(make)

    async def _rank(self, call: Call[Organization | Blob]) -> Rank:
        """The rank of a caller, who is an admin of the call's place."""
        role = await self._roles.held_role(call.caller, Place(organization_id=call.place.organization_id))
        return rules.rank(administrator=call.caller.administrator, on_organization=role)


def _source(place: Place) -> str:
    return rules.BLOB if place.blob_id else rules.ORGANIZATION
