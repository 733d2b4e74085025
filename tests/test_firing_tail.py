"""What watchers of firings are given from memory is what the database has."""

from __future__ import annotations

import asyncio

import flows
from blobhub.v1 import firing_pb2 as pb
from schedules import DEFAULT, NIGHTLY, create, firings, house, trigger
from served import Api
from waiting import until, within_deadline

TRIGGERED = 6


async def _follow(api: Api, found: list[pb.Firing], count: int, **fields) -> None:
    """Watch until there are so many lines."""
    async for batch in firings(api).WatchFirings(pb.WatchFiringsRequest(blob=NIGHTLY, **fields)):
        found.extend(batch.firings)
        if len(found) >= count:
            return


async def test_a_watcher_is_given_from_memory_what_the_database_has(api: Api) -> None:
    await house(api, flows.scripts(1))
    for alias in ("report", "other"):
        await create(api, alias)
    every, own, known = list[pb.Firing](), list[pb.Firing](), list[pb.Firing]()
    watches = [
        asyncio.create_task(_follow(api, every, 4 * TRIGGERED)),
        asyncio.create_task(_follow(api, own, 2 * TRIGGERED, schedule="other")),
    ]
    for number in range(TRIGGERED):
        for alias in ("report", "other"):
            await trigger(api, f"{DEFAULT}/{alias}")
        if number == 0:  # From here on they follow, and are given what was committed a moment ago.
            await until(lambda: bool(every and own))
    await within_deadline(asyncio.gather(*watches))
    await trigger(api)  # Nobody watches, so what was in memory is not used any more.
    await _follow(api, known, 4 * TRIGGERED, replay_only=True)
    assert [firing.sequence for firing in every] == [*range(1, 4 * TRIGGERED + 1)]
    assert every == known[: 4 * TRIGGERED]
    assert own == [firing for firing in every if firing.schedule_alias == "other"]
