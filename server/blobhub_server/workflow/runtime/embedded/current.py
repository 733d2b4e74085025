"""Sees to it that units rest on the session objects that are there when they are written.

A turn is decided on what it read a moment ago. When it comes to be written, another execution may have come first, in an
earlier batch, in this one or on another server, or a client's call may have. Then it is decided again here, under the lock
of the session, where nobody can come first any more. So however many write to one object, a batch writes all of its turns.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from blobhub_server.db.engine import Transaction
from blobhub_server.workflow.interpreter import BUDGET
from blobhub_server.workflow.runtime.embedded.object_reader import ObjectReader
from blobhub_server.workflow.runtime.embedded.unit import Unit
from blobhub_server.workflow.store import session_object as object_store

MAX_SPENT = 5 * BUDGET
"""How many components are evaluated again in one transaction, which others wait for. The units that are left then take in
what has happened, and are evaluated from there in turns of their own."""


async def bring_up_to_date(tx: Transaction, units: Sequence[Unit], reader: ObjectReader) -> list[Unit]:
    """The units, in their order, with those decided again that rest on session objects which are others by now.

    Each is to be written, and finds what those before it write. The caller has locked the sessions.
    """
    if not any(unit.reads for unit in units):
        return [*units]
    objects, left = await _Objects.load(tx, units, reader), MAX_SPENT
    current = []
    for unit in units:
        if objects.have_changed(unit):
            again = unit.decide_again(await objects.values(unit), min(left, BUDGET))
            left = max(0, left - again.spent)
            await asyncio.sleep(0)  # however many are decided again, others have their turn between any two
        else:
            again = unit
        objects.write(again)
        current.append(again)
    return current


class _Objects:
    """The session objects as the units of a batch find them one after the other."""

    def __init__(self, tx: Transaction, etags: Mapping[tuple[str, str], str], reader: ObjectReader) -> None:
        self._tx = tx
        self._reader = reader
        self._etags = etags
        self._written: dict[str, dict[str, Any]] = {}

    @classmethod
    async def load(cls, tx: Transaction, units: Sequence[Unit], reader: ObjectReader) -> _Objects:
        reading = [unit for unit in units if unit.reads]
        aliases = {alias for unit in reading for alias in unit.reads}
        return cls(tx, await object_store.etags(tx, {unit.execution.session_id for unit in reading}, aliases), reader)

    def have_changed(self, unit: Unit) -> bool:
        """Whether one of the objects that a unit rests on is another by now."""
        session_id = unit.execution.session_id
        written = self._written.get(session_id, {})
        return any(alias in written or self._etags.get((session_id, alias)) != etag for alias, etag in unit.reads.items())

    async def values(self, unit: Unit) -> Mapping[str, Any]:
        """The values of the objects that a unit's graph reads."""
        session_id, aliases = unit.execution.session_id, unit.graph.session_reads
        written = self._written.get(session_id, {})
        stored = await self._reader.read(
            self._tx,
            session_id,
            aliases - written.keys(),
            unit.needs,
            organization_id=unit.execution.organization_id,
        )
        return {**stored.values, **written}

    def write(self, unit: Unit) -> None:
        """Have the units that follow find what this one writes."""
        if unit.objects:
            self._written.setdefault(unit.execution.session_id, {}).update(unit.objects)
