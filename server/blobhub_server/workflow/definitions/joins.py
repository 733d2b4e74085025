"""Finds joins that can never fire, and joins that keep or swallow tokens of other rounds.

Whether a join can fire is asked of what may happen at all: any connected route may be taken. So a join that is an error here
never fires, whatever its components do; one that is none may still starve.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from math import inf

from blobhub_server.workflow.components.contract import ComponentKind
from blobhub_server.workflow.definitions.document import Component, Connection, Problem, ProblemType, Severity
from blobhub_server.workflow.definitions.lookup import START, Lookup, leads_inside, settings_of
from blobhub_server.workflow.values import unwrap

_WORK = 200_000
"""How many connections are followed at most. Each join looks at all that leads to it; joins beyond the bound pass unseen."""
_PASSES = 20
"""How often a cycle is gone round before the tokens that it makes are taken to be without number."""

_TOKEN = 1 << 20
"""One token: tokens are counted in parts of this size, rounded up, so that a bound stays one."""


def joins_first(join: Component) -> bool:
    """Whether a join is of mode `first`."""
    return bool(unwrap(settings_of(join).get("mode", "all")) == "first")


def join_problems(lookup: Lookup) -> Iterator[Problem]:
    """What is wrong with a definition's joins. Those of a scope are looked at by themselves: they are its activation's."""
    inside: dict[str, list[tuple[int, Component]]] = {}
    for number, component in enumerate(lookup.definition.components):
        inside.setdefault(component.parent_id, []).append((number, component))
    paths: dict[str, list[Connection]] = {}
    for connection in lookup.definition.connections:
        if connection.control and connection.source_id in lookup.components:
            source = connection.source_id
            within = source if leads_inside(lookup, connection) else lookup.components[source].parent_id
            paths.setdefault(within, []).append(connection)
    for scope, components in inside.items():
        if any(_is_join(lookup, component.id) for _, component in components):
            control = _Control(lookup, scope, [component for _, component in components], paths.get(scope, []))
            yield from _problems_in(control, components)


def _is_join(lookup: Lookup, id_: str) -> bool:
    type_ = lookup.types[id_]
    return type_ is not None and type_.kind is ComponentKind.JOIN


def _problems_in(control: _Control, components: Iterable[tuple[int, Component]]) -> Iterator[Problem]:
    """What is wrong with the joins of one scope."""
    for number, component in components:
        id_ = component.id
        if control.exhausted:
            return
        if 0 < control.waits_for.get(id_, 0) < len(control.incoming[id_]):
            yield _problem(component, number, _lacking(control, id_))
        elif id_ not in control.live:
            continue
        elif id_ in control.first:
            if cycles := control.way(id_, control.incoming[id_]).cycles:
                message = f"the cycle of {_names(cycles[0])} leads to it and not through it: what comes round is swallowed"
                yield _problem(component, number, message, Severity.WARNING)
        elif id_ in control.joins:
            yield from _all_problems(control, component, number)


def _all_problems(control: _Control, join: Component, number: int) -> Iterator[Problem]:
    """What is wrong with a join of mode `all` to which control may come by each of its connections."""
    incoming = control.incoming[join.id]
    for source, routes in _choices(incoming).items():
        if control.exhausted:
            return
        way = control.way(join.id, list(routes.values()))
        if way.most < len(routes):
            needed = f"it needs the routes {_names(list(routes))} of {source!r}"
            yield _problem(join, number, f"it can never fire: {needed}, which takes {way.most} of them at most")
            return
    way = control.way(join.id, incoming)
    if way.endless:
        message = f"the cycle of {_names(way.endless)} sends it tokens in each round; those of a round that is given up stay"
        yield _problem(join, number, message, Severity.WARNING)
    elif way.most < len(incoming):
        message = f"it can never fire: it has {len(incoming)} connections, and {way.most} tokens come at most"
        yield _problem(join, number, f"{message}, as a component takes one route")


def _choices(incoming: Iterable[Connection]) -> dict[str, dict[str, Connection]]:
    """The components that lead to a join by several routes, with a connection for each route."""
    routes: dict[str, dict[str, Connection]] = {}
    for connection in incoming:
        routes.setdefault(connection.source_id, {})[connection.route] = connection
    return {source: by_route for source, by_route in routes.items() if len(by_route) > 1}


def _lacking(control: _Control, join: str) -> str:
    never = [connection.id for connection in control.incoming[join] if connection.source_id not in control.live]
    return f"it can never fire: before it has fired nothing comes by the connections {_names(never)}"


def _names(ids: list[str]) -> str:
    return ", ".join(map(repr, ids[:3])) + (" …" if len(ids) > 3 else "")


def _problem(component: Component, number: int, message: str, severity: Severity = Severity.ERROR) -> Problem:
    return Problem(
        type=ProblemType.UNSOUND_JOIN,
        component_id=component.id,
        path=f"components[{number}]",
        message=message,
        severity=severity,
    )


class _Control:
    """The connections of control between the components of a scope, from the scope itself on, or from the start.

    `live` holds the components that control may come to, where an `all` join needs it by all of its connections;
    `waits_for` says by how many connections of each `all` join it does not come. `work` counts the connections followed.
    """

    def __init__(self, lookup: Lookup, scope: str, inside: Iterable[Component], connections: Iterable[Connection]) -> None:
        components = {component.id: component for component in inside}
        self.work = 0
        self.joins = {id_ for id_ in components if _is_join(lookup, id_)}
        self.first = {id_ for id_ in self.joins if joins_first(components[id_])}
        starts = [id_ for id_, component in components.items() if component.type == START]
        self.start = scope if scope in lookup.components else next(iter(starts), "")
        if scope in lookup.components:
            components[scope] = lookup.components[scope]
        self.routes: dict[str, dict[str, list[Connection]]] = {id_: {} for id_ in components}
        self.incoming: dict[str, list[Connection]] = {id_: [] for id_ in components}
        for connection in connections:
            if connection.source_id in components and connection.target_id in components:
                self.routes[connection.source_id].setdefault(connection.route, []).append(connection)
                self.incoming[connection.target_id].append(connection)
        self.waits_for = {id_: len(self.incoming[id_]) for id_ in self.joins if id_ not in self.first}
        self.live = self._live()

    @property
    def exhausted(self) -> bool:
        """Whether as much was looked at as may be."""
        return self.work > _WORK

    def way(self, join: str, connections: list[Connection]) -> _Way:
        """All that leads to a join by some of its connections."""
        way = _Way(self, join, connections)
        self.work += way.work
        return way

    def onward(self, component: str) -> Iterator[str]:
        """The components that its connections lead to."""
        for connections in self.routes[component].values():
            for connection in connections:
                yield connection.target_id

    def shares(self, component: str) -> int:
        """How many tokens are merged into one where control enters a component."""
        return len(self.incoming[component]) if component in self.waits_for else 1

    def _live(self) -> set[str]:
        live: set[str] = set()
        left = [self.start] if self.start else []
        while left:
            component = left.pop()
            if component in live:
                continue
            live.add(component)
            for target in self.onward(component):
                if target in self.waits_for:
                    self.waits_for[target] -= 1
                if not self.waits_for.get(target):
                    left.append(target)
        return live


class _Way:
    """All that leads to a join by the given connections, without what goes through it.

    `cycles` holds the cycles there are, `endless` one that sends tokens without number.
    """

    def __init__(self, control: _Control, join: str, connections: list[Connection]) -> None:
        self.cycles: list[list[str]] = []
        self.endless: list[str] = []
        self.work = 0
        self._control = control
        self._join = join
        self._given = {connection.id for connection in connections}
        # The most that comes to the join by these connections for one token at a component: each route is a choice, a token
        # passes along all connections of a route, and those that an `all` join merges share what it passes on.
        self._tokens: dict[str, int | float] = {}
        components = self._leading(connections)
        for group in _groups({component: self._within(component, components) for component in components}):
            if len(group) == 1 and group[0] not in control.onward(group[0]):
                self._tokens[group[0]] = self._most(group[0])
            else:
                self.cycles.append(group[::-1])
                self._go_round(group)

    @property
    def most(self) -> int | float:
        """How many tokens come at most in an execution, until the join fires; infinite if there is no bound."""
        tokens = self._tokens.get(self._control.start, 0)
        return tokens // _TOKEN if tokens != inf else inf

    def _leading(self, connections: list[Connection]) -> dict[str, None]:
        """The components that control may come from without going through the join, in an order."""
        found: dict[str, None] = {}
        left = list(connections)
        while left:
            source = left.pop().source_id
            self.work += 1
            if source not in found and source != self._join and source in self._control.live:
                found[source] = None
                left += self._control.incoming[source]
        return found

    def _within(self, component: str, components: Mapping[str, None]) -> list[str]:
        return [target for target in self._control.onward(component) if target in components]

    def _go_round(self, group: list[str]) -> None:
        """Find the tokens for the components of a cycle, which depend on each other."""
        self._tokens |= dict.fromkeys(group, 0)
        for _ in range(_PASSES):
            before = [self._tokens[component] for component in group]
            for component in group:
                self._tokens[component] = self._most(component)
            if before == [self._tokens[component] for component in group]:
                return
        self._tokens |= dict.fromkeys(group, inf)
        self.endless = self.endless or group[::-1]

    def _most(self, component: str) -> int | float:
        return max(sum(map(self._of, connections)) for connections in self._control.routes[component].values())

    def _of(self, connection: Connection) -> int | float:
        """How many tokens come to the join for one that is passed along a connection."""
        self.work += 1
        if connection.target_id == self._join:
            return _TOKEN if connection.id in self._given else 0
        tokens, shares = self._tokens.get(connection.target_id, 0), self._control.shares(connection.target_id)
        return tokens if tokens == inf else -(-tokens // shares)


def _groups(onward: Mapping[str, list[str]]) -> Iterator[list[str]]:
    """The strongly connected components of a graph, each after those that it leads to: Tarjan's algorithm, not recursive."""
    numbers: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: dict[str, None] = {}
    for root in onward:
        path = [] if root in numbers else [root]
        rest = {}
        while path:
            at = path[-1]
            if at not in numbers:
                numbers[at] = lowest[at] = len(numbers)
                stack[at] = None
                rest[at] = iter(onward[at])
            deeper = next((target for target in rest[at] if _meet(at, target, numbers, lowest, stack)), None)
            if deeper is not None:
                path.append(deeper)
                continue
            path.pop()
            if path:
                lowest[path[-1]] = min(lowest[path[-1]], lowest[at])
            if lowest[at] == numbers[at]:
                yield _pop_until(at, stack)


def _meet(at: str, target: str, numbers: dict[str, int], lowest: dict[str, int], stack: dict[str, None]) -> bool:
    """Whether a component that another leads to has not been seen; one on the stack is in a cycle with it."""
    if target in stack:
        lowest[at] = min(lowest[at], numbers[target])
    return target not in numbers


def _pop_until(last: str, stack: dict[str, None]) -> list[str]:
    """Take components off the stack, up to and with the last."""
    group: list[str] = []
    while not group or group[-1] != last:
        group.append(stack.popitem()[0])
    return group
