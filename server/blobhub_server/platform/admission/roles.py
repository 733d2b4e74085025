"""Looking up what decides: the roles that callers hold."""

from __future__ import annotations

from blobhub_server.blobtypes.contract import Located
from blobhub_server.db.engine import Database
from blobhub_server.platform.rules import access
from blobhub_server.platform.rules.access import Caller, Role
from blobhub_server.platform.store import member as store


class Roles:
    """Tells the role that a caller holds somewhere, as the database has it now."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def held(self, caller: Caller, place: Located) -> Role:
        """The role on an organization, a blob or a user; that it may be public does not count."""
        membership = Role.NONE
        if caller.user_id is not None and not caller.administrator and place.org_id:
            held_on = [place.org_id, *([place.blob_id] if place.blob_id else [])]
            async with self._db.read() as tx:
                membership = await store.membership(tx, caller.user_id, held_on)
        return access.held(caller, place, membership)
