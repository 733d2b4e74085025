"""Rows of parameters in pieces, each of which can be written in one go on the event loop."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

ROWS_AT_ONCE, LARGE_BYTES = 32, 64 << 10
"""How many rows, and bytes of them, are written in one go."""


def size_of(values: Sequence[Any]) -> int:
    """How long the texts and bytes among parameters are."""
    return sum([len(value) for value in values if type(value) is str or type(value) is bytes])


def pieces(rows: Sequence[Sequence[Any]]) -> Iterator[list[Sequence[Any]]]:
    """Rows of parameters in their order, in pieces that are written in one go: few and small ones, or a large one alone."""
    piece, size = list[Sequence[Any]](), 0
    for row in rows:
        more = size_of(row)
        if piece and (len(piece) == ROWS_AT_ONCE or size + more > LARGE_BYTES):
            yield piece
            piece, size = [], 0
        piece.append(row)
        size += more
    if piece:
        yield piece
