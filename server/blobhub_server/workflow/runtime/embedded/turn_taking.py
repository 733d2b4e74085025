"""Who decides next. Deciding holds the event loop, so runners take turns: by organization and, within it, by actor."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

from blobhub_server.background import TURN_SECONDS
from blobhub_server.turnstile import Party, Turnstile

Value = TypeVar("Value")


class TurnTaking:
    """Lets the executions of a server decide one after the other: one of each organization, then another one of each.

    Those of one organization go round in the same way by whoever has started them.

    Nobody waits while deciding is quick. Once it has held the loop for `TURN_SECONDS` in all, whatever else is ready has its
    turn, and then whoever is next.
    """

    def __init__(self) -> None:
        self._turnstile = Turnstile(1)
        self._spent = 0.0

    async def take(self, party: Party, decide: Callable[[], Value]) -> Value:
        """What `decide` returns, when it is this organization's and actor's turn. Raises what `decide` raises."""
        await self._turnstile.enter(party)
        begun = time.monotonic()
        try:
            return decide()
        finally:
            self._spent += time.monotonic() - begun
            if self._spent < TURN_SECONDS:
                self._turnstile.leave()
            else:
                asyncio.get_running_loop().call_soon(self._begin_anew)

    def _begin_anew(self) -> None:
        self._spent = 0.0
        self._turnstile.leave()
