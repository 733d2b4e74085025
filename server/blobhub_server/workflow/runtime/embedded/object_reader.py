"""Reads session objects for turns: small ones as they are, large ones once for each etag, and no more than a turn needs."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeVar

from blobhub_server.background import Turns
from blobhub_server.cache import Cache
from blobhub_server.db.engine import Transaction
from blobhub_server.turnstile import Turnstile, off_loop
from blobhub_server.workflow.interpreter import MAX_STEP_BYTES, Unread, json_memory
from blobhub_server.workflow.rules.execution import Execution
from blobhub_server.workflow.rules.session_object import Reading
from blobhub_server.workflow.store import session_object as object_store

_MAX_LARGE, _MAX_LARGE_BYTES = 1_000, 16 << 20
"""How many large values are cached, and of how many bytes of JSON together."""
_MAX_SMALL = 256
"""Of more objects than so many the sizes are read first, since even small values may be too much together."""
MAX_TURN_BYTES = 2 * MAX_STEP_BYTES
"""How much is read for a turn, as JSON: what the next step needs, and what the end of another one does."""
_AT_ONCE_BYTES = 1 << 20
"""How much one statement reads, on the event loop."""
MAX_LARGE_TURNS = 2
"""How many turns may have large values read for them, and not be decided yet."""
_MAX_ASIDE_BYTES = 256 << 10
"""Small values of no more than that are not counted among those."""

Value = TypeVar("Value")


class RunQuery(Protocol):
    """Runs a query in a transaction that reads, as soon as the database can be read."""

    async def __call__(self, query: Callable[[Transaction], Awaitable[Value]], /) -> Value:
        """What the query returns."""


@dataclass(frozen=True, slots=True)
class _Plan:
    """What is to be read for a turn: what is known of it, how much memory that takes about, of which so many bytes of JSON
    were `parsed` for it alone, and the large values that are missing, with their sizes."""

    session_id: str
    values: dict[str, Any]
    etags: dict[str, str]
    memory_bytes: int
    parsed: int
    missing: Mapping[str, int]


class ObjectReader:
    """Reads session objects of all executions of a server, and caches large values by their etags.

    Each version of an object has an etag of its own. Values are never changed in place, so whoever reads one may share it.
    """

    def __init__(self) -> None:
        self._room = Turnstile(MAX_LARGE_TURNS)
        self._large: Cache[tuple[Any, int]] = Cache(max_count=_MAX_LARGE, max_bytes=_MAX_LARGE_BYTES)

    @asynccontextmanager
    async def reading(
        self, run: RunQuery, execution: Execution, aliases: Collection[str], needs: Sequence[Collection[str]]
    ) -> AsyncIterator[Reading]:
        """The named objects of an execution's session until the block is left, as `read` gives them.

        They are read in short transactions by `run`. Who has much read waits for a turn first, and has it so long.
        """
        session_id, organization_id = execution.session_id, execution.organization_id
        party = (organization_id, execution.actor_id)
        plan = await run(lambda tx: self._plan(tx, session_id, aliases, needs))
        if not plan.missing and plan.parsed <= _MAX_ASIDE_BYTES:
            yield Reading(values=plan.values, etags=plan.etags, memory_bytes=plan.memory_bytes)
            return
        del plan  # However many wait, they hold nothing meanwhile.
        async with self._room.turn(party):
            yield await run(lambda tx: self.read(tx, session_id, aliases, needs, organization_id=organization_id))

    async def read(
        self,
        tx: Transaction,
        session_id: str,
        aliases: Collection[str],
        needs: Sequence[Collection[str]] = (),
        *,
        organization_id: str,
    ) -> Reading:
        """The named objects as a transaction sees them.

        Where they have more than MAX_STEP_BYTES together there is an `Unread` for some: what `needs` names comes first,
        group by group, unless that is more than MAX_STEP_BYTES by itself.
        """
        if not aliases:
            return Reading()
        return await self._load(tx, await self._plan(tx, session_id, aliases, needs), organization_id)

    async def _plan(
        self, tx: Transaction, session_id: str, aliases: Collection[str], needs: Sequence[Collection[str]]
    ) -> _Plan:
        """What is known of the objects, and what is to be read of them."""
        values, etags, missing = dict[str, Any](), dict[str, str](), dict[str, int]()
        look = object_store.read_small if len(aliases) <= _MAX_SMALL else object_store.read_sizes
        found, turns, parsed, memory = await look(tx, session_id, aliases), Turns(), 0, 0
        chosen = _choose({alias: size for alias, _, size, _ in found}, needs)
        for alias, etag, size, text in found:
            etags[alias] = etag
            if alias not in chosen:
                values[alias] = Unread()
            elif text is not None:
                values[alias] = json.loads(text)
                parsed += size
                memory += json_memory(text)
                await turns.pause()
            elif (known := self._large.get(etag)) is not None:
                values[alias] = known[0]
                memory += known[1]
            else:
                missing[alias] = size
        return _Plan(session_id=session_id, values=values, etags=etags, memory_bytes=memory, parsed=parsed, missing=missing)

    async def _load(self, tx: Transaction, plan: _Plan, organization_id: str) -> Reading:
        """What was planned, with the values that were missing; those that have gone meanwhile are absent."""
        values, etags = plan.values, {alias: etag for alias, etag in plan.etags.items() if alias not in plan.missing}
        memory = plan.memory_bytes
        for aliases in _portions(plan.missing):
            for alias, etag, text in await object_store.read(tx, plan.session_id, aliases):
                parse = partial(json.loads, text)
                values[alias], etags[alias] = await off_loop(len(text), (organization_id, plan.session_id), parse), etag
                size = json_memory(text)
                memory += size
                if len(text) > object_store.SMALL_BYTES:
                    self._large.put(etag, (values[alias], size), len(text))
        return Reading(values=values, etags=etags, memory_bytes=memory)


def _choose(sizes: Mapping[str, int], needs: Sequence[Collection[str]]) -> Collection[str]:
    """Which objects are read: all where they are not much, else what is needed, and small ones beside it."""
    if sum(sizes.values()) <= MAX_STEP_BYTES:
        return sizes
    chosen, total = set[str](), 0
    for group in needs:
        needed = [alias for alias in group if alias in sizes]
        more = sum(sizes[alias] for alias in needed if alias not in chosen)
        if sum(sizes[alias] for alias in needed) <= MAX_STEP_BYTES and total + more <= MAX_TURN_BYTES:
            chosen.update(needed)
            total += more
    for alias in sorted(sizes.keys() - chosen, key=lambda alias: (sizes[alias], alias)):
        total += sizes[alias]
        if total > MAX_STEP_BYTES:
            break
        chosen.add(alias)
    return chosen


def _portions(sizes: Mapping[str, int]) -> Iterator[list[str]]:
    """Aliases in portions that one statement reads."""
    portion, total = list[str](), 0
    for alias, size in sizes.items():
        if portion and total + size > _AT_ONCE_BYTES:
            yield portion
            portion, total = [], 0
        portion.append(alias)
        total += size
    if portion:
        yield portion
