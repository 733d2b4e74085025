"""How large the logs of an organization may become together.

What a session's log has grown by is counted on the session's own row. It is added to the organization's row once it is
256 KiB: then that row is locked rarely, however many sessions of the organization are busy.
"""

from __future__ import annotations

from collections.abc import Mapping

from blobhub_server.blobtypes.contract import Limits
from blobhub_server.db.engine import Transaction
from blobhub_server.errors import LimitExceeded
from blobhub_server.workflow.rules.limit import LOG_BYTES
from blobhub_server.workflow.store import log_size as store


class LogBudget:
    """Counts the logs of organizations against their limit."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits

    async def require_room(self, tx: Transaction, organization_id: str) -> None:
        """Raise LimitExceeded when the logs of an organization are as large as they may be."""
        counted = await store.get(tx, organization_id)
        if counted:  # Most organizations have nothing counted, and are spared the second look.
            await self._require(tx, organization_id, counted)

    async def add(self, tx: Transaction, grown: Mapping[str, int]) -> dict[str, LimitExceeded]:
        """Count what the logs of organizations have grown by, in bytes; return, by id, which of them are full now.

        Their rows stay locked until the commit, so this comes late in a transaction.
        """
        full = {}
        for organization_id, counted in (await store.add(tx, grown)).items():
            try:
                await self._require(tx, organization_id, counted)
            except LimitExceeded as error:
                full[organization_id] = error
        return full

    async def _require(self, tx: Transaction, organization_id: str, counted: int) -> None:
        """One byte more than what is counted has to be allowed: a log that is as large as it may be takes no more."""
        await self._limits.require(tx, LOG_BYTES, organization_id=organization_id, blob_id="", held=counted + 1)
