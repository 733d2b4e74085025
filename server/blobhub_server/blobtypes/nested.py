"""Tensors as JSON has them: nested lists, all as long as each other in one dimension."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, chain
from operator import mul
from typing import Any


class NotRectangular(Exception):
    """Lists beside each other are not of one length, or are beside what is no list."""


def flatten(value: Any) -> tuple[tuple[int, ...], list[Any]]:
    """Shape and items of nested lists, row by row; of anything else no dimension and one item. Raises NotRectangular.

    What is inside of empty lists has no shape: `[[], []]` is one of 2 and 0.
    """
    shape: list[int] = []
    items = [value]
    while list in (kinds := set(map(type, items))):
        if len(kinds) > 1:
            raise NotRectangular(f"lists and other items beside each other in dimension {len(shape)}")
        lengths = sorted(set(map(len, items)))
        if len(lengths) > 1:
            raise NotRectangular(f"lists of {lengths[0]} and of {lengths[-1]} items in dimension {len(shape)}")
        shape += lengths
        items = list(chain.from_iterable(items))
    return tuple(shape), items


def nest(shape: Sequence[int], items: Sequence[Any]) -> Any:
    """Items as nested lists of a shape; as they are, a single one, where that has no dimension."""
    if not shape:
        return items[0]
    if not items:
        return [nest(shape[1:], items) for _ in range(shape[0])] if len(shape) > 1 else []
    nested = list(items)
    for size in reversed(shape[1:]):
        nested = [nested[start : start + size] for start in range(0, len(nested), size)]
    return nested


def count_items(shape: Sequence[int]) -> int:
    """How many items all the lists of a shape have together, with those that are lists themselves."""
    return sum(accumulate(shape, mul))


def index_of(number: int, shape: Sequence[int]) -> str:
    """Where an item of a shape is, by its number: `[0][2]`; empty where there is no dimension."""
    place = ""
    for size in reversed(shape):
        number, within = divmod(number, size)
        place = f"[{within}]{place}"
    return place
