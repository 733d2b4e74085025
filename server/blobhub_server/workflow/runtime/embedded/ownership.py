"""Which sessions this server runs. Ownership is leased, and fenced: every write to a session's log carries the fence
under which it was claimed, so a server that slept through its lease writes nothing.
"""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from functools import partial

import structlog

from blobhub_server.blobtypes.contract import Host
from blobhub_server.db.engine import Transaction
from blobhub_server.workflow.errors import OwnershipLost
from blobhub_server.workflow.store import session as store

log = structlog.get_logger()


class Ownership:
    """This server's lease, and the fences of the sessions it holds."""

    def __init__(self, host: Host, lease_seconds: float) -> None:
        self._host = host
        self._lease_seconds = lease_seconds
        self._fences: dict[str, int] = {}
        self.server_id = host.ids()

    async def fence(self, session_id: str) -> int:
        """The fence under which this server holds a session, claimed now if need be.

        Raises OwnershipLost when another living server holds it.
        """
        held = self._fences.get(session_id)
        return await self.claim(session_id) if held is None else held

    async def claim(self, session_id: str) -> int:
        """Take a session that no living server holds; return its new fence. Raises OwnershipLost."""
        async with self._host.db.write() as tx:
            return await self.take(tx, session_id)

    async def take(self, tx: Transaction, session_id: str) -> int:
        """Take a session in somebody's transaction; return its fence, which holds once that is committed.

        Nobody else writes to the session's log until the transaction ends. Raises OwnershipLost.
        """
        fence = await store.claim(tx, session_id, self.server_id, self._host.clock())
        if fence is None:
            raise OwnershipLost
        tx.after_commit(partial(self._fences.__setitem__, session_id, fence))
        return fence

    def forget(self, session_id: str) -> None:
        """Stop believing that this server holds a session."""
        self._fences.pop(session_id, None)

    async def join(self) -> None:
        """Take the first lease. A database that only this server can open has no other living server."""
        async with self._host.db.write() as tx:
            if self._host.db.exclusive:
                await store.forget_servers(tx)
            await store.renew(tx, self.server_id, self._until())

    async def renew_forever(self) -> None:
        """Keep the lease, until cancelled."""
        while True:
            await asyncio.sleep(self._lease_seconds / 3)
            try:
                async with self._host.db.write() as tx:
                    await store.renew(tx, self.server_id, self._until())
            except Exception:
                log.exception("lease_not_renewed")

    async def leave(self) -> None:
        """Give everything up, so that another server can take it at once."""
        async with self._host.db.write() as tx:
            await store.release(tx, self.server_id)

    def _until(self) -> datetime:
        return self._host.clock() + timedelta(seconds=self._lease_seconds)
