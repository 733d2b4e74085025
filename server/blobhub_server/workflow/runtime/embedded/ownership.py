"""This server's lease. An execution is owned by the server that runs it, under a fence that goes up when the owner changes;
every write to its log is made under that fence, so a server that slept through its lease writes nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from functools import partial

import structlog

from blobhub_server.blobtypes.contract import Host
from blobhub_server.db.engine import Transaction
from blobhub_server.errors import StorageUnavailable
from blobhub_server.workflow.rules.execution import Execution
from blobhub_server.workflow.store import owner as owner_store
from blobhub_server.workflow.store import server as server_store

log = structlog.get_logger()

FORGET_AFTER = timedelta(hours=1)
"""How long the row of a server is kept after its lease ran out. One that wakes up later makes itself a new one."""

MAX_CLAIMED = 100
"""How many executions a server claims at once; other servers may claim more of them meanwhile."""
MAX_ADOPTED = 500
"""How many that rest it takes over at once. Others wait for the transaction, which takes some milliseconds."""


class Ownership:
    """This server's lease, and its claims on what no living server owns.

    `on_lapse` is called when the lease is renewed after it had run out.
    """

    def __init__(
        self,
        host: Host,
        lease_seconds: float,
        on_lapse: Callable[[], None],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._db = host.db
        self._lease = timedelta(seconds=lease_seconds)
        self._on_lapse = on_lapse
        self._monotonic = monotonic
        self._until = monotonic()
        self._expired: set[str] = set()
        self.server_id = host.server_id

    @property
    def holds_lease(self) -> bool:
        """Whether nobody can have taken over what this server runs, as far as it knows without asking.

        It measures by itself, from before the database was asked, so it takes its lease to be over no later than others do.
        """
        return self._db.exclusive or self._monotonic() < self._until

    async def take_lease(self) -> None:
        """Take the first lease. A database that only this server can open has no other living server."""
        asked = self._monotonic()
        async with self._db.write() as tx:
            if self._db.exclusive:
                await server_store.delete_all(tx)
            await server_store.renew(tx, self.server_id, self._lease)
        self._until = asked + self._lease.total_seconds()

    async def claim(self) -> list[Execution]:
        """Take over a batch of what no living server owns and has something to do; return it.

        Servers that have been dead for long, and from which there is nothing to take, are forgotten.
        """
        owners, claimed = await self._gone_owners(), list[Execution]()
        async with self._db.write() as tx:
            for owner in owners:
                claimed = claimed or await owner_store.claim(tx, self.server_id, owner, MAX_CLAIMED)
            await owner_store.forget_servers(tx, FORGET_AFTER)
        return claimed

    async def adopt(self, now: datetime) -> int:
        """Take over a batch of what no living server owns and that only rests; return how many there were.

        `now` is what the clock says by which this server wakes them.
        """
        for owner in await self._gone_owners():
            adopted = await self._db.transact(partial(self._adopt, owner=owner, now=now))
            if adopted:
                return adopted
        return 0

    async def _adopt(self, tx: Transaction, *, owner: str, now: datetime) -> int:
        return await owner_store.adopt(tx, self.server_id, owner, now, MAX_ADOPTED)

    async def _gone_owners(self) -> Sequence[str]:
        async with self._db.read() as tx:
            return await owner_store.gone_owners(tx, self.server_id)

    async def renew_forever(self) -> None:
        """Keep the lease, until cancelled."""
        seconds = self._lease.total_seconds()
        while True:
            await asyncio.sleep(seconds / 6)
            try:
                # A connection that does not answer is dropped; the next try opens another while the lease still runs.
                async with asyncio.timeout(seconds / 3):
                    await self._renew()
                    await self._cut_off_expired()
            except (StorageUnavailable, TimeoutError) as error:
                self._db.trouble.report(error)
            except Exception:
                log.exception("lease_not_renewed")

    async def _renew(self) -> None:
        asked = self._monotonic()
        async with self._db.reserved() as tx:
            await server_store.renew(tx, self.server_id, self._lease)
        if not self.holds_lease:
            self._on_lapse()
        self._until = asked + self._lease.total_seconds()

    async def _cut_off_expired(self) -> None:
        """End the connections of servers whose leases have just run out.

        A server that was frozen may hold locks, and the database ends idle transactions only: it does not see that one is
        idle whose next statement is prepared and not run.
        """
        if self._db.exclusive:
            return
        async with self._db.reserved() as tx:
            expired = await server_store.list_expired(tx) - {self.server_id}
        if expired - self._expired:
            await self._db.end_connections(sorted(expired - self._expired))
        self._expired = expired

    async def end_lease(self) -> None:
        """End the lease, so that other servers can take over what is left at once. If that fails, it ends by itself."""
        try:
            async with self._db.write() as tx:
                await server_store.delete(tx, self.server_id)
        except StorageUnavailable:
            log.warning("lease_not_ended")
