"""What has happened to an execution and is not taken in yet."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

from blobhub_server.workflow.interpreter import Happening


@dataclass(frozen=True, slots=True)
class Arrival:
    """A happening in the queue. `done` is set once what follows from it is durable, or nothing follows here."""

    happening: Happening
    done: asyncio.Future[None] | None = None


def tell(arrivals: Iterable[Arrival], error: Exception | None = None) -> None:
    """Tell those who wait, and have not been told: that it is done, or why not."""
    for done in (item.done for item in arrivals):
        if done is None or done.done():
            continue
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)
