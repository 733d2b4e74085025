"""A slow model of scopes beside that of tokens: how bodies end, are tried again, and are left. It shares no code with the
interpreter.

Tokens know the run of a scope's part that they are in, and runs know the token that is in their scope. What is left, and
what is in it, is found by walking; nothing is counted.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import flows
from hypothesis import strategies as st
from scoping import inside
from token_model import ERROR, JOINS, MADE, OUTCOMES, ROUTES, Connection, Plan, reached

SCOPES = ("try", "loop")
SCOPE_ROUTES = ROUTES | dict.fromkeys(SCOPES, ("success", "failure")) | {"fail": ()}
ATTEMPTS, ROUNDS = 2, 2
"""How often a body is tried whose scope's name says `again`; how often that of a loop is run."""


@dataclass(frozen=True, kw_only=True)
class Ending:
    """How a run ends: `end`, `exit` for a terminal end, or `error` with a reason; whether another attempt may help."""

    kind: str
    reason: str = ""
    again: bool = False


@dataclass(frozen=True)
class ScopePlan(Plan):
    """A graph with scopes: also the scope that each component is in, `""` outside of all."""

    scopes: dict[str, str] = field(default_factory=dict)

    @property
    def document(self) -> str:
        retry = {"retry": {"maximum_attempts": ATTEMPTS, "initial_interval": "1s"}}
        made = MADE | {
            "try": lambda name: flows.component(name, "flow.try", policy=retry if "again" in name else None),
            "loop": lambda name: flows.component(
                name, "flow.loop", policy=retry if "again" in name else None, **{"while": f"index < {ROUNDS}"}
            ),
            "fail": lambda name: flows.component(name, "flow.fail", reason="MEANT"),
        }
        parts = [inside(self.scopes[name], made[kind](name))[0] for name, kind in self.kinds.items()]
        connections = [{**flows.control(c.source, c.target, c.route), "id": c.id} for c in self.connections]
        return flows.document(parts, connections)

    def leads(self, component: str, route: str) -> bool:
        """Whether a connection carries the route."""
        return any((c.source, c.route) == (component, route) for c in self.connections)


@dataclass(eq=False)
class Part:
    """A run of a part of a scope, or the execution, which is of no scope."""

    scope: Token | None = None
    part: str = "body"
    entered: int = 0
    ending: Ending | None = None
    marked: dict[str, list[Token]] = field(default_factory=dict)


@dataclass(eq=False)
class Token:
    """Control in one place of a run. The token in a scope's step also says how far that has come.

    `failed` counts the attempts at its body that failed, in this round; `waits` while it is to be tried again; `after` is
    how it ends once its `finally` has ended, which has begun when it is set; `rounds` counts those that have ended well.
    """

    component: str
    run: Part
    connection: str | None = None
    parents: tuple[Token, ...] = ()
    failed: int = 0
    rounds: int = 0
    waits: bool = False
    after: Ending | None = None


@dataclass
class ScopeModel:
    """Runs a plan, as `token_model.Model` does."""

    plan: ScopePlan
    choose: Callable[[int], int]
    step_limit: int
    root: Part = field(default_factory=Part)
    runs: list[Part] = field(default_factory=list)
    ready: list[Token] = field(default_factory=list)
    open: list[Token] = field(default_factory=list)
    waiting: list[Token] = field(default_factory=list)
    entered: list[str] = field(default_factory=list)
    ended: Ending | None = None

    def run(self) -> ScopeModel:
        """Run to the end, which `ended` tells."""
        self.runs.append(self.root)
        self.ready.append(Token(component=next(iter(self.plan.kinds)), run=self.root))
        while self.ended is None:
            if quiet := self._quiet():
                self._settle(quiet)
            elif self.ready:
                self._enter()
            else:
                self._go_on()
        return self

    def _go_on(self) -> None:
        """Something ends that is waited for: a script, or the time between two attempts."""
        possible = [token for token in self.open if not self._is_scope(token) or token.waits]
        token = possible[self.choose(len(possible))]
        if token.waits:
            token.waits = False
            self._begin(token, "body")
        else:
            self._end_step(token, OUTCOMES[self.choose(len(OUTCOMES))])

    def _is_scope(self, token: Token) -> bool:
        return self.plan.kinds[token.component] in SCOPES

    def _quiet(self) -> Part | None:
        """A run in which nothing is ready or open: the execution, or that of the scope that was entered first."""
        active = {token.run for token in (*self.ready, *self.open)}
        quiet = [run for run in self.runs if run not in active]
        if self.root in quiet:
            return self.root
        return min(quiet, key=lambda run: self.open.index(run.scope), default=None)

    def _enter(self) -> None:
        token = self.ready[0]
        if token.run.entered == self.step_limit:
            self.ended = Ending(kind="error", reason="STEP_LIMIT")
            return
        self.ready.pop(0)
        token.run.entered += 1
        self.entered.append(token.component)
        self.open.append(token)
        match self.plan.kinds[token.component]:
            case "script":
                pass
            case "try" | "loop":
                self._begin(token, "body")
            case "good":
                self._end_step(token, "success")
            case "bad":
                self._end_step(token, ERROR, "EXPRESSION_ERROR", again=False)
            case "fail":
                self._end_step(token, ERROR, "MEANT")
            case "switch":
                self._end_step(token, "a")
            case "stop":
                self.open.remove(token)
                self._leave(self.root, Ending(kind="exit"))
            case "end":
                self.open.remove(token)
                if token.run is not self.root:
                    self._leave(token.run, Ending(kind="end"))
            case _:
                self._end_step(token, "next")

    def _end_step(self, token: Token, outcome: str, reason: str = "UNLUCKY", *, again: bool = True) -> None:
        self.open.remove(token)
        leads = self.plan.leads(token.component, outcome)
        if outcome not in ("success", "next", "failure", ERROR) and not leads:
            outcome, reason, again = ERROR, "ROUTE_LEADS_NOWHERE", False
        if outcome not in (ERROR, "failure"):
            self._pass(token, outcome)
        elif self.plan.leads(token.component, "failure"):
            self._pass(token, "failure")
        else:
            self._leave(
                token.run, Ending(kind="error", reason=reason if outcome is ERROR else "UNHANDLED_FAILURE", again=again)
            )

    def _begin(self, scope: Token, part: str) -> None:
        """Begin a run of a scope's part, which comes from nowhere: nothing that is late for a join outside is late in it."""
        run = Part(scope=scope, part=part)
        self.runs.append(run)
        self._place(Token(component=scope.component, run=run), part, parents=())

    def _pass(self, token: Token, route: str) -> None:
        self._place(token, route, parents=(token,))

    def _place(self, token: Token, route: str, parents: tuple[Token, ...]) -> None:
        ways = [c for c in self.plan.connections if (c.source, c.route) == (token.component, route)]
        for way in ways:
            to_join = self.plan.kinds[way.target] in JOINS
            connection = way.id if to_join else None
            placed = Token(component=way.target, run=token.run, connection=connection, parents=parents)
            (self.waiting if to_join else self.ready).append(placed)
        for join in dict.fromkeys(way.target for way in ways if self.plan.kinds[way.target] in JOINS):
            (self._look_all if self.plan.kinds[join] == "all" else self._look_first)(join, token.run)

    def _look_all(self, join: str, run: Part) -> None:
        incoming = [c.id for c in self.plan.connections if c.target == join]
        queues = [[t for t in self.waiting if t.connection == id_ and t.run is run] for id_ in incoming]
        if all(queues):
            taken = tuple(queue[0] for queue in queues)
            self.waiting = [token for token in self.waiting if token not in taken]
            self.ready.append(Token(component=join, run=run, parents=taken))

    def _look_first(self, join: str, run: Part) -> None:
        while here := [token for token in self.waiting if token.component == join and token.run is run]:
            token = here[0]
            self.waiting.remove(token)
            if self._is_late(token, join):
                continue
            others = [t for t in (*self.ready, *self.open, *self.waiting) if t.run is run and self._may_come_to(t, join)]
            run.marked[join] = [*run.marked.get(join, []), *others]
            self.ready.append(Token(component=join, run=run, parents=(token,)))

    def _is_late(self, token: Token, join: str) -> bool:
        if token in token.run.marked.get(join, []):
            return True
        return bool(token.parents) and all(self._is_late(parent, join) for parent in token.parents)

    def _may_come_to(self, token: Token, join: str) -> bool:
        here = token.connection is not None and token.component == join
        return here or join in reached(self.plan, token.component)

    def _live(self, scope: Token) -> list[Part]:
        return [run for run in self.runs if run.scope is scope]

    def _within(self, run: Part) -> Iterator[Part]:
        """A run and those of bodies in it: what runs last is not among them."""
        yield run
        for scope in [token for token in self.open if token.run is run]:
            for inner in self._live(scope):
                if inner.part == "body":
                    yield from self._within(inner)

    def _scopes_within(self, run: Part) -> list[Token]:
        runs = list(self._within(run))
        return [token for token in self.open if token.run in runs and self._is_scope(token)]

    def _is_left_around(self, run: Part) -> bool:
        while run.scope is not None and run.part == "body":
            run = run.scope.run
            if run.ending is not None:
                return True
        return False

    def _is_left(self, run: Part) -> bool:
        return run.ending is not None or self._is_left_around(run)

    def _has_last(self, scope: Token) -> bool:
        return self.plan.leads(scope.component, "finally")

    def _leave(self, run: Part, ending: Ending) -> None:
        """Leave a run: only what runs last in it goes on."""
        if not any(map(self._has_last, self._scopes_within(run))):
            self._finish(run, ending)
            return
        run.ending = ending
        runs = list(self._within(run))
        self.ready = [token for token in self.ready if token.run not in runs]
        self.waiting = [token for token in self.waiting if token.run not in runs]
        self.open = [token for token in self.open if token.run not in runs or self._is_scope(token)]
        for scope in self._scopes_within(run):
            scope.waits = False
            self._go_on_leaving(scope)

    def _go_on_leaving(self, scope: Token) -> None:
        """What is around a scope is left: once it waits for nothing inside, what is last runs, or it is gone."""
        if self._live(scope):
            return
        if self._has_last(scope) and scope.after is None:
            scope.after = Ending(kind="")
            self._begin(scope, "finally")
        else:
            self.open.remove(scope)

    def _settle(self, run: Part) -> None:
        """Nothing is ready or open in a run."""
        if run.ending is not None and not self._is_left_around(run):
            self._finish(run, run.ending)
        elif any(token.run is run for token in self.waiting):
            self._finish(run, Ending(kind="error", reason="JOIN_STARVED"))
        else:
            self._finish(run, Ending(kind="end"))

    def _finish(self, run: Part, ending: Ending) -> None:
        if run.scope is None:
            self.ended = ending
            return
        self._forget(run)
        scope, left = run.scope, self._is_left_around(run)
        if left or (run.part == "finally" and self._is_left(scope.run)):
            self._go_on_leaving(scope)
            if run.part == "finally" and ending.kind == "error" and self.root.ending == Ending(kind="exit"):
                self._leave(self.root, ending)
        elif run.part == "finally":
            assert scope.after is not None
            self._end_scope(scope, ending if ending.kind == "error" else scope.after)
        elif ending.kind == "error" and ending.again and "again" in scope.component and scope.failed + 1 < ATTEMPTS:
            scope.failed, scope.waits = scope.failed + 1, True
        elif ending.kind != "error" and self._has_another_round(scope):
            self._begin(scope, "body")
        elif self._has_last(scope):
            scope.after = ending
            self._begin(scope, "finally")
        else:
            self._end_scope(scope, ending)

    def _has_another_round(self, scope: Token) -> bool:
        scope.rounds, scope.failed = scope.rounds + 1, 0
        return self.plan.kinds[scope.component] == "loop" and scope.rounds < ROUNDS

    def _forget(self, run: Part) -> None:
        """Forget a run and all that is in it."""
        for scope in [token for token in self.open if token.run is run]:
            for inner in self._live(scope):
                self._forget(inner)
        self.runs.remove(run)
        self.ready, self.open, self.waiting = (
            [token for token in tokens if token.run is not run] for tokens in (self.ready, self.open, self.waiting)
        )

    def _end_scope(self, scope: Token, ending: Ending) -> None:
        if ending.kind == "error":
            self._end_step(scope, ERROR, ending.reason, again=ending.again)
        else:
            self._end_step(scope, "success")


@st.composite
def scope_plans(draw: st.DrawFn, *, most: int = 5, deepest: int = 3) -> ScopePlan:
    """Graphs with scopes within scopes, in each of which there are joins, forks and cycles."""
    kinds, scopes, connections = {"start": "start"}, {"start": ""}, list[Connection]()
    numbers, ways = itertools.count(), itertools.count()

    def connect(source: str, route: str, target: str) -> None:
        connections.append(Connection(id=f"c{next(ways)}", source=source, route=route, target=target))

    def fill(scope: str, begins: list[tuple[str, str]], depth: int) -> None:
        possible = ["script"] * 5 + ["good", "bad", "fail", "switch", "end", "end", "stop", "all", "first", "first"]
        possible += ["try"] * 3 + ["loop"] * 2 if depth < deepest else []
        names, made = list[str](), draw(st.lists(st.sampled_from(possible), min_size=1, max_size=most))
        for kind in made:
            again = "-again" if kind in SCOPES and draw(st.booleans()) else ""
            name = f"{kind}-{next(numbers)}{again}"
            kinds[name], scopes[name] = kind, scope
            if kind in SCOPES:
                last = [(name, "finally")] if kind == "try" and draw(st.booleans()) else []
                fill(name, [(name, "body"), *last], depth + 1)
            routes = [(each, SCOPE_ROUTES[kinds[each]][0]) for each in names if SCOPE_ROUTES[kinds[each]]]
            connect(*draw(st.sampled_from([*begins, *routes, *routes])), name)
            names.append(name)
        for begin in begins:
            connect(*begin, draw(st.sampled_from(names)))
        for name in names:
            for route in SCOPE_ROUTES[kinds[name]]:
                for target in draw(st.lists(st.sampled_from(names), max_size=1)):
                    connect(name, route, target)

    fill("", [("start", "next")], 0)
    unique = {(c.source, c.route, c.target): c for c in connections}
    return ScopePlan(kinds=kinds, connections=tuple(unique.values()), scopes=scopes)
