"""A turn while it is made: what it reads and writes, and the records that it emits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from blobhub_server.workflow.definitions.graph import Graph, Node
from blobhub_server.workflow.interpreter.fold import apply
from blobhub_server.workflow.interpreter.price import price_of_bytes, price_of_work
from blobhub_server.workflow.interpreter.records import Record
from blobhub_server.workflow.interpreter.session_values import (
    apply_writes,
    are_unread,
    beyond_reading,
    changed_in_place,
    require_writable,
)
from blobhub_server.workflow.interpreter.state import ExecutionState


@dataclass(slots=True)
class Turn:
    """What happenings lead to: records, and the state and the session's objects after them.

    `written` holds those of the objects that the turn writes. `reads` names those that it has read as they were before it:
    it is not what follows where they are others. `touched` has the steps that something has happened to. `spent` is what of
    the budget it took, and `taken` how many of the happenings it has taken in. The state that the turn began with is
    unchanged, so a turn can be thrown away.
    """

    state: ExecutionState
    session: dict[str, Any]
    records: list[Record] = field(default_factory=list)
    written: dict[str, Any] = field(default_factory=dict)
    reads: set[str] = field(default_factory=set)
    touched: set[int] = field(default_factory=set)
    spent: int = 0
    taken: int = 0


class TurnMaker:
    """Writes down what a turn decides: each record is folded into its state at once."""

    def __init__(self, graph: Graph, turn: Turn, now: float, budget: int) -> None:
        self.budget = budget
        self._graph = graph
        self._state = turn.state
        self._turn = turn
        self._session = turn.session
        self._records = turn.records
        self._now = now
        # What the first component needs was read for it, as far as it may be.
        self._first = bool(turn.state.ready)

    def _apply_writes(self, node: Node, outputs: Mapping[str, Any]) -> dict[str, Any]:
        """The session objects that outputs write, by alias. Raises ComponentError where an operation cannot be applied.

        The execution's own values are written by the fold of the record, so here it is only seen that they can be.
        """
        changed = changed_in_place(node, outputs, "session")
        self._note_reads(changed)
        if are_unread(changed, self._session):
            raise beyond_reading(changed)
        work = require_writable(node, outputs, "session", self._session)
        work += require_writable(node, outputs, "execution", self._state.values)
        self.budget -= price_of_work(work)
        return apply_writes(node, outputs, "session", self._session)

    def _write(self, objects: Mapping[str, Any]) -> None:
        """Write session objects."""
        if objects:
            self._session |= objects
            self._turn.written |= objects

    def _read_session(self, aliases: Iterable[str]) -> dict[str, Any]:
        self._note_reads(aliases)
        return {alias: self._session[alias] for alias in aliases if alias in self._session}

    def _note_reads(self, aliases: Iterable[str]) -> None:
        """Note which session objects are read, but for those that this turn has written itself."""
        self._turn.reads.update(alias for alias in aliases if alias not in self._turn.written)

    def _current(self, step: int, attempt: int | None = None) -> bool:
        """Whether a step is open and, when asked, at that attempt, and the execution is not being stopped."""
        found = self._state.open.get(step)
        return found is not None and attempt in (None, found.attempt) and self._state.running

    def _node(self, step: int) -> Node:
        return self._graph.components[self._state.open[step].component_id]

    def _emit(
        self,
        type_: str,
        step: int | None = None,
        public: dict[str, Any] | None = None,
        private: dict[str, Any] | None = None,
    ) -> None:
        about = None if step is None else self._state.open[step]
        self._append(
            Record(
                type=type_,
                at=self._now,
                step=step,
                attempt=about.attempt if about else None,
                component_id=about.component_id if about else None,
                activation=about.activation if about else 0,
                public=public or {},
                private=private or {},
            )
        )

    def _append(self, record: Record) -> None:
        self.budget -= price_of_bytes(*apply(self._graph, self._state, record))
        self._records.append(record)
        if record.step is not None:
            self._turn.touched.add(record.step)
