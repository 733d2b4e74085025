"""The executions that rest and are still in memory: the last ones that began to, so many and so large.

What waits for a moment, or gets signal after signal, is not read from its log each time. All others are rows.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from blobhub_server.workflow.runtime.embedded.runner import Runner

MAX_COUNT = 512
"""How many are in memory at most; one takes some 10 kB."""
MAX_BYTES = 16 << 20
"""What the states of all of them may take, but for the one that began last."""


class Resting:
    """Runners that rest, in the order in which they began to. `park` is called with one that is to leave memory."""

    def __init__(self, park: Callable[[Runner], None]) -> None:
        self._park = park
        self._runners: OrderedDict[str, tuple[Runner, int]] = OrderedDict()
        self._bytes = 0

    def add(self, runner: Runner) -> None:
        """Take in a runner that begins to rest; those that have rested longest give way."""
        self.forget(runner.execution.id)
        self._runners[runner.execution.id] = runner, runner.state_bytes
        self._bytes += runner.state_bytes
        while len(self._runners) > MAX_COUNT or (self._bytes > MAX_BYTES and len(self._runners) > 1):
            oldest, _ = self._runners[next(iter(self._runners))]
            self.forget(oldest.execution.id)
            self._park(oldest)

    def forget(self, execution_id: str) -> None:
        """Forget a runner that has ended, or whose execution has a new one."""
        _, size_bytes = self._runners.pop(execution_id, (None, 0))
        self._bytes -= size_bytes
