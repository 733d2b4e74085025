"""What the states of the executions that this server runs, and the session objects that their steps are run on, take in
memory: of an organization together, and of all.

One execution is bounded by itself (`interpreter/holdings.py`). This bounds how many of those there may be at once, whoever
has how many.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

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
        self._sizes[execution.id] = size_bytes
        self._add(execution.organization_id, grown)
        return grown > 0 and self._is_beyond(execution.organization_id)

    @contextmanager
    def counted(self, execution: Execution, size_bytes: int) -> Iterator[bool]:
        """Count what one of its steps takes beside the state until the block is left; whether that is within the bounds."""
        self._add(execution.organization_id, size_bytes)
        try:
            yield not (size_bytes and self._is_beyond(execution.organization_id))
        finally:
            self._add(execution.organization_id, -size_bytes)

    def forget(self, execution: Execution) -> None:
        """Count an execution no more that does not run here any more."""
        self._add(execution.organization_id, -self._sizes.pop(execution.id, 0))

    def _is_beyond(self, organization_id: str) -> bool:
        own = self._of[organization_id]
        return own > MAX_ORGANIZATION_BYTES or (self._total > MAX_BYTES and own == max(self._of.values()))

    def _add(self, organization_id: str, size_bytes: int) -> None:
        self._total += size_bytes
        self._of[organization_id] += size_bytes
        if not self._of[organization_id]:
            del self._of[organization_id]
