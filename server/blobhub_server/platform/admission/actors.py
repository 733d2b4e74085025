"""Actors: on whose behalf something is done later, without a call of theirs."""

from __future__ import annotations

from blobhub_server.blobtypes.access import Caller, Place, Role
from blobhub_server.clock import Clock
from blobhub_server.db.engine import Transaction
from blobhub_server.platform.admission.authentication import key_caller, user_caller
from blobhub_server.platform.admission.roles import held_role
from blobhub_server.platform.store import api_key as key_store
from blobhub_server.platform.store import user as user_store


class Actors:
    """Implements `blobtypes.contract.Actors`."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    async def role(self, tx: Transaction, actor_id: str, place: Place) -> Role:
        caller = await self._caller(tx, actor_id)
        return Role.NONE if caller is None else await held_role(tx, caller, place)

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
