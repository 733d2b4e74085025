"""The runners of this server, one for each execution that it runs."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby

from blobhub_server.workflow.definitions.graph import Graph
from blobhub_server.workflow.rules.execution import Execution
from blobhub_server.workflow.rules.message import Message
from blobhub_server.workflow.runtime.decision import Progress
from blobhub_server.workflow.runtime.embedded.runner import Runner, Surroundings

_ENDED_LATELY = 1024
"""How many ended executions are kept at hand; what has ended does not change any more."""


class Runners:
    """Makes runners, keeps them while they run, and hands them the messages to their executions.

    `broken` is told an execution whose runner has given up for another reason than that the execution is another's.
    """

    def __init__(self, around: Surroundings, broken: Callable[[Execution], None]) -> None:
        self._around = around
        self._broken = broken
        self._runners: dict[str, Runner] = {}
        self._undelivered: dict[str, list[Message]] = {}
        self._ended_lately: OrderedDict[str, Execution] = OrderedDict()
        self._leaving = False

    def __contains__(self, execution_id: str) -> bool:
        return execution_id in self._runners

    @property
    def running(self) -> frozenset[str]:
        """The executions that have a runner, by id."""
        return frozenset(self._runners)

    def known(self, execution_id: str) -> Execution | None:
        """An execution that runs here, or did so lately, as of its last commit."""
        runner = self._runners.get(execution_id)
        return runner.execution if runner is not None else self._ended_lately.get(execution_id)

    def make(self, graph: Graph, progress: Progress) -> Runner:
        """A runner of an execution that this server owns."""
        return Runner(self._around, graph, progress, self._ended, self._gave_up)

    def launch(self, runner: Runner) -> None:
        """Set a new execution to work, unless recovery was quicker."""
        if self.keep(runner):
            runner.begin()

    def keep(self, runner: Runner, inbox: Sequence[Message] = ()) -> bool:
        """Keep a runner, and deliver what is in the inbox; False where the execution has one, which goes on instead.

        A server that is going away keeps none: it leaves the execution in the database, to whoever is next.
        """
        if self._leaving or runner.execution.id in self._runners:
            return False
        self._runners[runner.execution.id] = runner
        runner.deliver([*inbox, *self._undelivered.pop(runner.execution.id, ())])
        return True

    def deliver(self, messages: Iterable[Message]) -> None:
        """Hand out all messages to the executions that this server owns; those to each in order.

        An execution may have been started so lately that its runner is still to come: it gets them then.
        """
        self._undelivered = {}
        for execution_id, own in groupby(messages, lambda message: message.execution_id):
            runner = self._runners.get(execution_id)
            if runner is None:
                self._undelivered[execution_id] = list(own)
            else:
                runner.deliver(list(own))

    def cut_off(self, session_ids: set[str]) -> None:
        """Abandon what runs in sessions that are gone."""
        for runner in list(self._runners.values()):
            if runner.execution.session_id in session_ids:
                runner.abandon()
                del self._runners[runner.execution.id]

    def leave(self) -> None:
        """Abandon everything: the server goes away."""
        self._leaving = True
        for runner in self._runners.values():
            runner.abandon()

    def _ended(self, runner: Runner) -> None:
        self._runners.pop(runner.execution.id, None)
        if runner.execution.ended:
            self._ended_lately[runner.execution.id] = runner.execution
            if len(self._ended_lately) > _ENDED_LATELY:
                self._ended_lately.popitem(last=False)

    def _gave_up(self, runner: Runner) -> None:
        self._broken(runner.execution)
