"""Actors: on whose behalf something is done later, without a call of theirs."""

from __future__ import annotations

import asyncio

from blobhub_server.blobtypes.access import NOWHERE, Caller, Place, Role
from blobhub_server.blobtypes.contract import RevisionView
from blobhub_server.clock import Clock
from blobhub_server.db.engine import Database, Transaction
from blobhub_server.errors import BlobHubError, PermissionDenied
from blobhub_server.platform.admission.absence import Absence
from blobhub_server.platform.admission.authentication import key_caller, user_caller
from blobhub_server.platform.admission.locators import Locators
from blobhub_server.platform.admission.roles import held_role
from blobhub_server.platform.rules import access
from blobhub_server.platform.store import api_key as key_store
from blobhub_server.platform.store import user as user_store


class Actors:
    """Implements `blobtypes.contract.Actors`."""

    def __init__(self, db: Database, clock: Clock, locators: Locators, absence: Absence) -> None:
        self._db = db
        self._clock = clock
        self._locators = locators
        self._absence = absence

    async def role(self, tx: Transaction, actor_id: str, place: Place) -> Role:
        caller = await self._caller(tx, actor_id)
        return Role.NONE if caller is None else await held_role(tx, caller, place)

    async def find_revision(self, actor_id: str, reference: str) -> RevisionView:
        async with self._db.read() as tx:
            caller = await self._caller(tx, actor_id)
        if caller is None:
            raise PermissionDenied("whoever this is done for may not act any more: revoked, expired, disabled or deleted")
        found = await self._locators.locate(reference, caller)
        place = NOWHERE if found is None else found.place
        async with self._db.read() as tx:
            role = await held_role(tx, caller, place)
        if found is None or access.is_hidden(role, public=place.public, seen_by=found.seen_by):
            since = asyncio.get_running_loop().time()
            error, _ = await self._absence.refusal(caller, "revision", reference, since=since)
            raise reword_for_actor(error, reference)
        if isinstance(found.resource, BlobHubError):
            raise await self._absence.in_blob(caller, place, found.resource)
        return found.resource

    async def may_act(self, tx: Transaction, actor_id: str) -> bool:
        """Whether a key or user exists, and is neither revoked, expired nor disabled."""
        return await self._caller(tx, actor_id) is not None

    async def _caller(self, tx: Transaction, actor_id: str) -> Caller | None:
        """The caller that a key or a user is now; None when it may not act any more."""
        key = await key_store.get(tx, actor_id)
        if key is not None and not key.valid(self._clock()):
            return None
        user_id = actor_id if key is None else key.user_id
        user = None if user_id is None else await user_store.get(tx, user_id)
        if user is not None and user.disabled:
            return None
        if key is not None:
            return key_caller(key, user)
        return None if user is None else user_caller(user, Role.ADMIN, None, None)


def reword_for_actor(error: BlobHubError, reference: str) -> BlobHubError:
    """The error in words for whoever reads what was done on an actor's behalf."""
    if not isinstance(error, PermissionDenied):
        return error
    return PermissionDenied(f"{reference}: there is no such thing, or whoever this is done for may not see it")
