"""What the states of the executions that this server runs take in memory: of an organization together, and of all.

One execution is bounded by itself (`interpreter/holdings.py`). This bounds how many of those there may be at once, whoever
has how many.
"""

from __future__ import annotations

from collections import Counter

from blobhub_server.workflow.rules.execution import Execution

MAX_ORGANIZATION_BYTES = 128 << 20
"""What the states of an organization's executions may take together on one server."""
MAX_BYTES = 192 << 20
"""What those of all organizations may take. Beyond it, the organization that has the most may have no more."""


class StateMemory:
    """Counts the states of running executions."""

    def __init__(self) -> None:
        self._sizes: dict[str, int] = {}
        self._of: Counter[str] = Counter()
        self._total = 0

    def count(self, execution: Execution, size_bytes: int) -> bool:
        """Count what an execution's state takes now, in place of what it took; whether it has grown beyond the bounds."""
        grown = size_bytes - self._sizes.get(execution.id, 0)
        if not grown:
            return False
        organization_id = execution.organization_id
        self._sizes[execution.id] = size_bytes
        self._add(organization_id, grown)
        if grown < 0:
            return False
        own = self._of[organization_id]
        return own > MAX_ORGANIZATION_BYTES or (self._total > MAX_BYTES and own == max(self._of.values()))

    def forget(self, execution: Execution) -> None:
        """Count an execution no more that does not run here any more."""
        self._add(execution.organization_id, -self._sizes.pop(execution.id, 0))

    def _add(self, organization_id: str, size_bytes: int) -> None:
        self._total += size_bytes
        self._of[organization_id] += size_bytes
        if not self._of[organization_id]:
            del self._of[organization_id]
