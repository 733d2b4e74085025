"""Tokens that wait at joins, and marks of tokens that are late.

A join of mode `first` fires on the first token that comes to it. Every other token of that moment is marked late for it, and
a late token is swallowed when it comes. A mark is a bit of the join's own (`Node.late_mark`), so all marks of a token are
one integer. All tokens are marked, and not only those that the join is reachable for: the others never come to it, and
where tokens merge, all of them reach what the merged one reaches. So no reachability is computed.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from blobhub_server.workflow.definitions.graph import Graph, Node

_ALL_MARKS = -1


Token = tuple[str, int, str]
"""Control that has come to a component: its id, the marks of the joins that the token is late for, and its origin.

The origin is the component whose route `failure` led here last, "" where none did. It is a plain tuple, because every step
makes one.
"""


@dataclass(slots=True)
class Joins:
    """The tokens that wait at the `all` joins of one activation, which is the execution.

    `waiting` holds the tokens' marks and origins by connection, oldest first. `lacking` says of each join that has tokens
    how many of its connections have none. Values in both are replaced and never changed in place.
    """

    waiting: dict[str, tuple[tuple[int, str], ...]] = field(default_factory=dict)
    lacking: dict[str, int] = field(default_factory=dict)

    def copy(self) -> Joins:
        """An independent copy."""
        return Joins(waiting=dict(self.waiting), lacking=dict(self.lacking))

    def clear(self) -> None:
        """Forget all tokens."""
        self.waiting.clear()
        self.lacking.clear()

    def put(self, join: Node, connection_id: str, late: int, origin: str) -> None:
        """Place a token that has come to a join by one of its connections."""
        queue = self.waiting.get(connection_id, ())
        if not queue:
            self.lacking[join.id] = self.lacking.get(join.id, len(join.incoming)) - 1
        self.waiting[connection_id] = (*queue, (late, origin))

    def take(self, join: Node) -> Token | None:
        """Take the oldest token of each connection and merge them; None while one has none.

        A mark stays if all have it. The origin is that of the first connection whose token has one.
        """
        if self.lacking.get(join.id) != 0:
            return None
        late, origin = _ALL_MARKS, ""
        empty = 0
        for connection_id in join.incoming:
            oldest, *later = self.waiting.pop(connection_id)
            late &= oldest[0]
            origin = origin or oldest[1]
            if later:
                self.waiting[connection_id] = tuple(later)
            else:
                empty += 1
        self.lacking[join.id] = empty
        if empty == len(join.incoming):
            del self.lacking[join.id]
        return join.id, late, origin

    def mark_late(self, mark: int) -> None:
        """Mark all tokens that wait."""
        for connection_id, queue in self.waiting.items():
            self.waiting[connection_id] = tuple([(late | mark, origin) for late, origin in queue])

    def starved(self, graph: Graph) -> str:
        """Which joins have tokens and wait for others, in words."""
        return "; ".join(self._starved(graph.components[join_id]) for join_id in self.lacking)

    def _starved(self, join: Node) -> str:
        lacks = ", ".join(id_ for id_ in join.incoming if id_ not in self.waiting)
        has = ", ".join(_told(id_, len(self.waiting[id_])) for id_ in join.incoming if id_ in self.waiting)
        return f"join {join.id!r} lacks tokens of: {lacks}; left over are tokens of: {has}"


def _told(connection_id: str, count: int) -> str:
    return connection_id if count == 1 else f"{connection_id} ({count})"
