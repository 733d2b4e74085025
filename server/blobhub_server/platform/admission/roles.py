"""Looks up the roles that callers hold on places, and places as they are now."""

from __future__ import annotations

from blobhub_server.blobtypes.access import Caller, Place, Role
from blobhub_server.db.engine import Database, Transaction
from blobhub_server.errors import PermissionDenied
from blobhub_server.ids import NOTHING
from blobhub_server.platform.rules import access
from blobhub_server.platform.store import blob as blob_store
from blobhub_server.platform.store import member as store
from blobhub_server.platform.store import organization as organization_store
from blobhub_server.platform.store import place as place_store


def _depends_on_membership(caller: Caller) -> bool:
    """Whether the roles that a caller holds depend on memberships. This is not about the place, as `NOTHING` explains."""
    return caller.user_id is not None and not caller.administrator


async def held_role(tx: Transaction, caller: Caller, place: Place) -> Role:
    """The role on a place, as a transaction sees it, whether or not the place is public."""
    membership = Role.NONE
    if caller.user_id is not None and _depends_on_membership(caller):
        resource_ids = [place.organization_id or NOTHING, place.blob_id or NOTHING]
        membership = await store.membership(tx, caller.user_id, resource_ids)
    return access.held_role(caller, place, membership)


class Roles:
    """Finds the role that a caller holds on a place, always in the database."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def held_role(self, caller: Caller, place: Place) -> Role:
        """The role on a place, whether or not the place is public."""
        if not _depends_on_membership(caller):
            return access.held_role(caller, place, Role.NONE)
        async with self._db.read() as tx:
            return await held_role(tx, caller, place)

    async def is_there(self, place: Place) -> bool:
        """Whether a place is there: its organization and its blob, or its user. Always takes one statement."""
        async with self._db.read() as tx:
            return await place_store.is_there(tx, place)

    async def current_place(self, place: Place) -> Place | None:
        """The same place as it is now; None when it is gone."""
        async with self._db.read() as tx:
            if place.blob_id:
                blob = await blob_store.get(tx, place.blob_id)
                return (
                    None
                    if blob is None
                    else Place(organization_id=blob.organization_id, blob_id=blob.id, public=blob.public)
                )
            if place.organization_id:
                organization = await organization_store.find(tx, id_=place.organization_id)
                return None if organization is None else Place(organization_id=organization.id, public=organization.public)
        return place

    async def require_reader(self, caller: Caller, place: Place) -> None:
        """Raise PermissionDenied when a place still exists and the caller holds no role on it."""
        now = await self.current_place(place)
        if now is not None:
            role = await self.held_role(caller, now)
            if access.is_hidden(role, public=False, seen_by=Role.READ):
                raise PermissionDenied
