"""What one turn of one execution writes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from blobhub_server.errors import LimitExceeded
from blobhub_server.turnstile import off_loop
from blobhub_server.workflow.definitions.graph import Graph
from blobhub_server.workflow.interpreter import NO_TASKS, Record, TaskTurn, Try, WaitChanges
from blobhub_server.workflow.log.encode import EncodedRecord, encode_alike, encode_records
from blobhub_server.workflow.rules import session_object as object_rules
from blobhub_server.workflow.rules.execution import Execution
from blobhub_server.workflow.rules.session_object import Reading
from blobhub_server.workflow.runtime.contract import StartWork
from blobhub_server.workflow.runtime.decision import Decision

Key = tuple[str, int]
"""An execution's id and fence: a batch may have a turn of a runner that has lost an execution and one of its successor."""

Decide = Callable[[Mapping[str, Any], int], Decision]
"""Decides on what has happened, by the values of session objects and with a budget of components to evaluate in place."""


@dataclass(frozen=True, slots=True)
class EncodedUnit:
    """What a unit writes, encoded: its records, and session objects as JSON text, by alias."""

    records: Sequence[EncodedRecord]
    objects: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Unit:
    """What one turn of one execution writes. One without records has its fence compared before a step is run.

    `execution` is its projection after `records`, under the fence that its runner holds; it takes account of the messages up
    to `last_message`, of which `messages` are taken in by this unit. `limit` is for a new execution, whose row is to be
    made: how many the session may have had, with it. `on_commit` is called once it is durable, before any
    watcher can see the records, and `on_full` after it, where the logs of its organization turn out to be full. `objects`
    holds session objects to write, by alias, and `waits` which steps begin and end to wait for signals.

    `reads` holds the etags of the session objects that the turn rests on, None for one that was absent. Where one of them is
    another by now, `decide_again` makes the unit that follows from the values that it is given, by alias, with a budget of
    components to evaluate in place; `needs` says which it has to be given, in groups. `spent` is how much of its budget a
    unit took, `logged` how many bytes it adds to the log. `tasks` is what becomes of
    tasks of workers, and `over` has the tries whose children are to stop. `encoded` is there once `encode` has been called.
    """

    execution: Execution
    graph: Graph
    records: Sequence[Record]
    on_commit: Callable[[], None]
    on_full: Callable[[LimitExceeded], None]
    decide_again: Callable[[Mapping[str, Any], int], Unit]
    messages: int = 0
    limit: int | None = None
    objects: Mapping[str, Any] = field(default_factory=dict)
    reads: Mapping[str, str | None] = field(default_factory=dict)
    needs: Sequence[Collection[str]] = ()
    spent: int = 0
    logged: int = 0
    waits: WaitChanges = field(default_factory=WaitChanges)
    tasks: TaskTurn = NO_TASKS
    over: Sequence[Try] = ()
    work: StartWork | None = None
    encoded: EncodedUnit | None = None

    @property
    def key(self) -> Key:
        """What tells it from all others in a batch."""
        return self.execution.id, self.execution.fence

    async def encode(self, alike: Unit | None = None) -> Unit:
        """The unit with what it writes encoded: once, and beside the event loop where that takes long.

        `alike` is an encoded unit with the very same records, of another execution of the same definition.
        """
        if self.encoded is not None:
            return self
        if alike is not None and alike.encoded is not None:
            records = encode_alike(alike.encoded.records, self.execution)
            return replace(self, encoded=EncodedUnit(records=records, objects=alike.encoded.objects))
        # What is logged takes a quarter of the time to encode that it takes to read.
        made = await off_loop(self.logged // 4, (self.execution.organization_id, ""), self._encode)
        return replace(self, encoded=made)

    def _encode(self) -> EncodedUnit:
        return EncodedUnit(
            records=encode_records(self.records, self.graph, self.execution),
            objects={alias: object_rules.encode(value) for alias, value in self.objects.items()},
        )

    @classmethod
    def of(
        cls,
        decision: Decision,
        graph: Graph,
        decide: Decide,
        keep: Callable[[Decision], None],
        on_full: Callable[[LimitExceeded], None],
        *,
        objects: Reading | None,
        needs: Sequence[Collection[str]] = (),
        limit: int | None = None,
        work: StartWork | None = None,
    ) -> Unit:
        """The unit of a decision that `decide` made on some session objects; on None if they cannot change any more.

        `needs` says which of them it had to be given.

        `keep` gets the decision that was made durable, after its commit; `on_full` is the unit's.
        """

        def decide_again(session: Mapping[str, Any], budget: int) -> Unit:
            return cls.of(decide(session, budget), graph, decide, keep, on_full, objects=None, limit=limit, work=work)

        return cls(
            execution=decision.progress.execution,
            graph=graph,
            records=decision.records,
            on_commit=partial(keep, decision),
            on_full=on_full,
            decide_again=decide_again,
            messages=decision.messages,
            limit=limit,
            objects=decision.objects,
            reads={alias: objects.etags.get(alias) for alias in decision.reads} if objects is not None else {},
            needs=needs,
            spent=decision.spent,
            logged=decision.logged,
            waits=decision.waits,
            tasks=decision.tasks,
            over=decision.over,
            work=work,
        )
