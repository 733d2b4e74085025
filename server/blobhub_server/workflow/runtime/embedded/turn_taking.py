"""Who decides next. Deciding holds the event loop, so runners take turns, and the turns go round by organization."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

from blobhub_server.background import TURN_SECONDS, Rounds

Value = TypeVar("Value")

_Waiter = tuple[str, asyncio.Future[None]]


class TurnTaking:
    """Lets the executions of a server decide one after the other: one of each organization, then another one of each.

    Nobody waits while deciding is quick. Once it has held the loop for `TURN_SECONDS` in all, whatever else is ready has its
    turn, and then whoever is next.
    """

    def __init__(self) -> None:
        self._waiting: Rounds[_Waiter] = Rounds(lambda waiter: waiter[0])
        self._taken = False
        self._spent = 0.0

    async def take(self, organization_id: str, decide: Callable[[], Value]) -> Value:
        """What `decide` returns, when it is an execution of this organization's turn. Raises what `decide` raises."""
        if self._taken:
            await self._wait(organization_id)
        self._taken = True
        begun = time.monotonic()
        try:
            return decide()
        finally:
            self._spent += time.monotonic() - begun
            if self._spent < TURN_SECONDS:
                self._pass_on()
            else:
                asyncio.get_running_loop().call_soon(self._begin_anew)

    async def _wait(self, organization_id: str) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.add((organization_id, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # It has come, and is not taken.
                self._pass_on()
            raise

    def _begin_anew(self) -> None:
        self._spent = 0.0
        self._pass_on()

    def _pass_on(self) -> None:
        self._taken = False
        while self._waiting:
            _, turn = self._waiting.pop()
            if not turn.done():
                self._taken = True
                turn.set_result(None)
                return
