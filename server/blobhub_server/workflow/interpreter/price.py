"""What a turn may spend, and what it spends for each thing that it does: all of it in components.

A turn holds the event loop while it is decided, and the database while it is written. So its budget is spent by what takes
long there, whichever of the two it is. What one unit of work is stands in `blobtypes/expressions/fuel.py`.
"""

from __future__ import annotations

BUDGET = 200
"""How many components are evaluated in place before others have their turn, so that no execution blocks the server."""

_WORK = 50
"""How much work counts as one more component. An expression that does all it may ends the turn."""
_BYTES = 2 << 10
"""How many bytes of values count as one more component, so that a turn, and what it writes, stay small."""
_MEMORY = 8 << 10
"""How many bytes of values in memory do: to go over 10,000 items takes a millisecond, and they may be short as text."""
_MARKS = 100
"""How many marks that tokens are late count as one more component."""


def price_of_work(work: int) -> int:
    """What so many units of work take of a budget."""
    return work // _WORK


def price_of_bytes(logged: int, memory: int) -> int:
    """What a record takes of a budget that adds so many bytes to the log, and whose values take so many in memory."""
    return logged // _BYTES + memory // _MEMORY


def price_of_entering(tokens: int, *, marks: bool) -> int:
    """What entering a component takes of a budget where there are so many tokens; `marks` says that it may mark all."""
    return 1 + tokens // _MARKS if marks else 1
