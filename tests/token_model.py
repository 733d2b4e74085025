"""A slow model of control: how tokens move, which are late, how an execution ends. It shares no code with the interpreter.

Tokens are objects that know their parents. Whether a token is late is asked of its ancestry when it comes to a join, and
which tokens are on their way to a join is found by walking the connections.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import flows
from hypothesis import strategies as st

ROUTES = {
    "start": ("next",),
    "script": ("success", "failure", "other"),
    "good": ("success", "failure"),
    "bad": ("success", "failure"),
    "switch": ("a", "default"),
    "all": ("next",),
    "first": ("next",),
    "end": (),
    "stop": (),
}
"""Kinds of component, with the routes that may be connected. A script takes any; the others are evaluated in place."""

JOINS = ("all", "first")
ERROR = "an error"
OUTCOMES = (*["success"] * 12, *["other", "failure"] * 3, ERROR, "nowhere")
"""What a script does, as its chance has it."""

MADE = {
    "start": lambda name: flows.component(name, "flow.start"),
    "script": lambda name: flows.component(name, "logic.code", code="pass"),
    "good": lambda name: flows.component(name, "logic.expression", expression="1 + 1"),
    "bad": lambda name: flows.component(name, "logic.expression", expression="1 // 0"),
    "switch": lambda name: flows.component(name, "flow.switch", cases=[{"route": "a", "when": "True"}]),
    "all": lambda name: flows.component(name, "flow.join", mode="all"),
    "first": lambda name: flows.component(name, "flow.join", mode="first"),
    "end": lambda name: flows.component(name, "flow.end"),
    "stop": lambda name: flows.component(name, "flow.end", terminal=True),
}
"""A component of each kind, by its name."""


@dataclass(frozen=True)
class Connection:
    """A connection of control."""

    id: str
    source: str
    route: str
    target: str


@dataclass(frozen=True)
class Plan:
    """A graph: kinds by component, the first of which is the start, and connections in their order."""

    kinds: dict[str, str]
    connections: tuple[Connection, ...]

    @property
    def document(self) -> str:
        """The definition that it stands for."""
        connections = [{**flows.control(c.source, c.target, c.route), "id": c.id} for c in self.connections]
        return flows.document([MADE[kind](name) for name, kind in self.kinds.items()], connections)


@dataclass(eq=False)
class Token:
    """Control in one place: ready to enter a component, in its step, or come by a connection to a join."""

    component: str
    connection: str | None
    parents: tuple[Token, ...]


@dataclass
class Model:
    """Runs a plan. `choose` gives a number below another, and is asked which script ends next, and how."""

    plan: Plan
    choose: Callable[[int], int]
    step_limit: int
    ready: list[Token] = field(default_factory=list)
    open: list[Token] = field(default_factory=list)
    waiting: list[Token] = field(default_factory=list)
    marked: dict[str, list[Token]] = field(default_factory=dict)
    entered: list[str] = field(default_factory=list)
    arrived: set[str] = field(default_factory=set)
    """The joins that a token has come to."""
    ended: str = ""
    swallowed: int = 0

    def run(self) -> Model:
        """Run to the end; `ended` is `completed`, `stop` for a terminal end, or the reason of the failure."""
        self.ready.append(Token(component=next(iter(self.plan.kinds)), connection=None, parents=()))
        while not self.ended:
            if self.ready:
                self._enter()
            elif self.open:
                token = self.open.pop(self.choose(len(self.open)))
                self._end_step(token, OUTCOMES[self.choose(len(OUTCOMES))])
            else:
                self.ended = "JOIN_STARVED" if self.waiting else "completed"
        return self

    def _enter(self) -> None:
        if len(self.entered) == self.step_limit:
            self.ended = "STEP_LIMIT"
            return
        token = self.ready.pop(0)
        self.entered.append(token.component)
        match self.plan.kinds[token.component]:
            case "script":
                self.open.append(token)
            case "good":
                self._end_step(token, "success")
            case "bad":
                self._end_step(token, ERROR, "EXPRESSION_ERROR")
            case "switch":
                self._end_step(token, "a")
            case "stop":
                self.ended = "stop"
            case "end":
                pass
            case _:
                self._end_step(token, "next")

    def _end_step(self, token: Token, outcome: str, reason: str = "UNLUCKY") -> None:
        connected = {c.route for c in self.plan.connections if c.source == token.component}
        if outcome not in connected and outcome not in ("success", "next", "failure", ERROR):
            outcome, reason = ERROR, "ROUTE_LEADS_NOWHERE"
        if outcome in (ERROR, "failure") and "failure" not in connected:
            self.ended = reason if outcome is ERROR else "UNHANDLED_FAILURE"
            return
        self._pass(token, "failure" if outcome is ERROR else outcome)

    def _pass(self, token: Token, route: str) -> None:
        ways = [c for c in self.plan.connections if (c.source, c.route) == (token.component, route)]
        for way in ways:
            to_join = self.plan.kinds[way.target] in JOINS
            placed = Token(component=way.target, connection=way.id if to_join else None, parents=(token,))
            (self.waiting if to_join else self.ready).append(placed)
        for join in dict.fromkeys(way.target for way in ways if self.plan.kinds[way.target] in JOINS):
            self.arrived.add(join)
            (self._look_all if self.plan.kinds[join] == "all" else self._look_first)(join)

    def _look_all(self, join: str) -> None:
        incoming = [c.id for c in self.plan.connections if c.target == join]
        queues = [[token for token in self.waiting if token.connection == id_] for id_ in incoming]
        if all(queues):
            taken = tuple(queue[0] for queue in queues)
            self.waiting = [token for token in self.waiting if token not in taken]
            self.ready.append(Token(component=join, connection=None, parents=taken))

    def _look_first(self, join: str) -> None:
        while here := [token for token in self.waiting if token.component == join]:
            token = here[0]
            self.waiting.remove(token)
            if self.late(token, join):
                self.swallowed += 1
                continue
            others = [other for other in (*self.ready, *self.open, *self.waiting) if self._is_on_its_way(other, join)]
            self.marked[join] = [*self.marked.get(join, []), *others]
            self.ready.append(Token(component=join, connection=None, parents=(token,)))

    def late(self, token: Token, join: str) -> bool:
        """Whether it was marked itself, or comes of late ones alone."""
        if token in self.marked.get(join, []):
            return True
        return bool(token.parents) and all(self.late(parent, join) for parent in token.parents)

    def _is_on_its_way(self, token: Token, join: str) -> bool:
        if token.connection is not None and token.component == join:
            return True
        return join in reached(self.plan, token.component)


def reached(plan: Plan, source: str) -> set[str]:
    """The components that control can come to from one, by one connection or more."""
    found: set[str] = set()
    left = [source]
    while left:
        at = left.pop()
        for connection in plan.connections:
            if connection.source == at and connection.target not in found:
                found.add(connection.target)
                left.append(connection.target)
    return found


@st.composite
def plans(draw: st.DrawFn, *, most: int = 9) -> Plan:
    """Graphs with joins of both modes, forks and cycles, all of whose components a connection leads to."""
    steps, joins, ends = ["script"] * 6 + ["good"] * 3, ["all", "first"] * 3, ["bad", "switch", "end", "stop"]
    kinds = st.sampled_from(steps + joins + ends)
    names = {"start": "start"}
    numbers = itertools.count()
    for kind in draw(st.lists(kinds, min_size=2, max_size=most)):
        names[f"{kind}-{next(numbers)}"] = kind
    return Plan(kinds=names, connections=tuple(_connections(draw, names)))


def _connections(draw: st.DrawFn, kinds: dict[str, str]) -> Iterator[Connection]:
    numbers = itertools.count()
    names = list(kinds)

    def connection(source: str, target: str, routes: tuple[str, ...]) -> Connection:
        return Connection(id=f"c{next(numbers)}", source=source, route=draw(st.sampled_from(routes)), target=target)

    for at, target in enumerate(names[1:], start=1):
        source = draw(st.sampled_from([name for name in names[:at] if ROUTES[kinds[name]]]))
        # The route that is usually taken is usually meant.
        routes = ROUTES[kinds[source]]
        yield connection(source, target, (routes[0], *routes))
    joins = [name for name, kind in kinds.items() if kind in JOINS]
    targets = names[1:] + joins * 2
    for source in names:
        for route in ROUTES[kinds[source]]:
            for target in draw(st.lists(st.sampled_from(targets), max_size=2)):
                yield connection(source, target, (route,))
