"""The last lines of a log, in memory: copies of committed rows, so a reader cannot tell where its lines came from."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

Line = TypeVar("Line")

MAX_LINES = 512
MAX_BYTES = 1 << 20


class Tail(Generic[Line]):
    """The last lines of one log, without gaps: `first` … `last` in the log's own numbering. `size` is in bytes."""

    __slots__ = ("_size_of", "first", "last", "lines", "size")

    def __init__(self, size_of: Callable[[Line], int]) -> None:
        self._size_of = size_of
        self.lines: deque[Line] = deque()
        self.first = 1
        self.last = 0
        self.size = 0

    def add(self, number: int, line: Line) -> None:
        """Append a line. A line that does not follow the last empties the tail, so that readers use the database."""
        if number != self.last + 1:
            self.lines.clear()
            self.size = 0
        if number <= self.last:
            self.first = self.last + 1
            return
        self.lines.append(line)
        self.last = number
        self.size += self._size_of(line)
        while len(self.lines) > MAX_LINES or (self.size > MAX_BYTES and len(self.lines) > 1):
            self.size -= self._size_of(self.lines.popleft())
        self.first = number - len(self.lines) + 1

    def read_after(self, number: int, limit: int) -> list[Line] | None:
        """The lines after a number; None when the tail does not have them all."""
        if not self.first - 1 <= number < self.last:
            return None
        start = number - self.first + 1
        return [self.lines[i] for i in range(start, min(start + limit, len(self.lines)))]
