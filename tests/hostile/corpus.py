"""The hostile corpus: its members, of all kinds."""

from __future__ import annotations

from functools import cache

from hostile import calls, definitions, expressions, frames, scripts, values
from hostile.attacker import Member

KINDS = ("expression", "switch", "script", "value", "definition", "frame", "call")


@cache
def members() -> tuple[Member, ...]:
    """All members, in the order of their kinds."""
    return tuple(member for part in (expressions, scripts, values, definitions, frames, calls) for member in part.members())
