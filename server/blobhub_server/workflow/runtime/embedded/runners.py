"""The runners of this server, one for each execution that it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import groupby

from blobhub_server.cache import Cache
from blobhub_server.workflow.definitions.graph import Graph
from blobhub_server.workflow.rules.execution import Execution
from blobhub_server.workflow.rules.message import Message
from blobhub_server.workflow.runtime.decision import Progress
from blobhub_server.workflow.runtime.embedded.launches import Launches
from blobhub_server.workflow.runtime.embedded.resting import Resting
from blobhub_server.workflow.runtime.embedded.runner import Runner
from blobhub_server.workflow.runtime.embedded.runner_context import RunnerContext

_MAX_RECENTLY_ENDED = 1024
_MAX_RECENTLY_ENDED_BYTES = 16 << 20
"""How many ended executions are cached, which do not change any more, and how much they may take together."""
_EXECUTION_BYTES = 4096
"""What an execution takes beside its result, about."""
KEPT_SECONDS = 1.0
"""An execution that has something to do so soon is kept in memory."""


class Runners:
    """Makes runners, keeps them while they run, and delivers messages to them.

    `launches` begins those that were started many at once. `on_failure` is called with an execution, a turn of which was not
    stored, and the error; losing the ownership is none. `on_park` is called with one that rests and has left memory.
    """

    def __init__(
        self,
        context: RunnerContext,
        on_failure: Callable[[Execution, Exception], None],
        on_park: Callable[[Execution], None],
    ) -> None:
        self._context = context
        self._on_park = on_park
        self._on_failure = on_failure
        self._runners: dict[str, Runner] = {}
        self._undelivered: dict[str, list[Message]] = {}
        self._recently_ended: Cache[Execution] = Cache(max_count=_MAX_RECENTLY_ENDED, max_bytes=_MAX_RECENTLY_ENDED_BYTES)
        self._resting = Resting(self._park)
        self.launches = Launches()
        self.leaving = False

    @property
    def running(self) -> frozenset[str]:
        """The executions that have a runner, by id."""
        return frozenset(self._runners)

    def find(self, execution_id: str) -> Execution | None:
        """An execution that runs here, or did until lately, as of its last commit."""
        runner = self._runners.get(execution_id)
        return runner.execution if runner is not None else self._recently_ended.get(execution_id)

    def make(self, graph: Graph, progress: Progress, journaled: float = 0.0) -> Runner:
        """A runner of an execution that this server owns; `journaled` is the time of its last record."""
        about = self._on_end, self._on_runner_failure, journaled, self._resting.add
        return Runner(self._context, graph, progress, *about)

    def launch(self, runner: Runner) -> None:
        """Add and begin the runner of a new execution, unless recovery has resumed it already."""
        if self.add(runner):
            runner.begin()

    def launch_later(self, runner: Runner) -> None:
        """The same for one of many, which begins in its turn."""
        if self.add(runner):
            self.launches.append(runner)

    def has(self, execution: Execution) -> bool:
        """Whether an execution has a runner under the fence that this server owns it under now."""
        runner = self._runners.get(execution.id)
        return runner is not None and runner.execution.fence >= execution.fence

    def add(self, runner: Runner, inbox: Sequence[Message] = ()) -> bool:
        """Add a runner and deliver its inbox; return False when the execution has a runner already.

        A runner with an older fence is replaced. A server that shuts down adds none, and leaves the execution to the next
        server.
        """
        if self.leaving or self.has(runner.execution):
            return False
        self.drop(runner.execution.id)
        self._runners[runner.execution.id] = runner
        runner.deliver([*inbox, *self._undelivered.pop(runner.execution.id, ())])
        return True

    def deliver(self, messages: Iterable[Message]) -> frozenset[str]:
        """Deliver all messages to the executions that this server owns; those to each in order.

        Returns those that have no runner, by id, which get their messages with one: they rest, or were just started.
        """
        self._undelivered = {}
        for execution_id, own in groupby(messages, lambda message: message.execution_id):
            runner = self._runners.get(execution_id)
            if runner is None:
                self._undelivered[execution_id] = list(own)
            else:
                runner.deliver(list(own))
        return frozenset(self._undelivered)

    def drop(self, execution_id: str) -> None:
        """Abandon an execution, if it runs here: another server owns it, a newer runner replaces it, or it was deleted."""
        runner = self._runners.pop(execution_id, None)
        self._resting.forget(execution_id)
        if runner is not None:
            runner.abandon()

    def _park(self, runner: Runner) -> None:
        """Have an execution that rests be in the database only, unless something has happened to it meanwhile."""
        if self._runners.get(runner.execution.id) is runner and runner.rests and not self._is_due(runner):
            self.drop(runner.execution.id)
            self._on_park(runner.execution)

    def _is_due(self, runner: Runner) -> bool:
        return runner.execution.wake_time.timestamp() - self._context.server_now() < KEPT_SECONDS

    def leave(self) -> None:
        """Abandon everything, because the server shuts down."""
        self.leaving = True
        self.launches.end()
        for runner in self._runners.values():
            runner.abandon()

    def _on_end(self, runner: Runner) -> None:
        if self._runners.get(runner.execution.id) is runner:
            del self._runners[runner.execution.id]
            self._resting.forget(runner.execution.id)
        if runner.execution.ended:
            size_bytes = _EXECUTION_BYTES + len(runner.execution.result or b"")
            self._recently_ended.put(runner.execution.id, runner.execution, size_bytes)

    def _on_runner_failure(self, runner: Runner, error: Exception) -> None:
        self._on_failure(runner.execution, error)
