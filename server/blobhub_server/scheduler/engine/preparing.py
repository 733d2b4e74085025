"""Has the definitions of due schedules compiled before the schedules are claimed: other writers wait for the claim.

A definition that takes long, or cannot be read now, keeps no other schedule from firing: its own are left out, and stay due.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import structlog

from blobhub_server.blobtypes.capabilities import Invocable, Invocation
from blobhub_server.blobtypes.contract import Host
from blobhub_server.errors import BlobHubError
from blobhub_server.scheduler.arming import DUE
from blobhub_server.scheduler.engine.firings import read_document
from blobhub_server.scheduler.store import version as version_store
from blobhub_server.scheduler.store.due import DueSchedule

log = structlog.get_logger()

PATIENCE_SECONDS = 0.2
"""How long schedules that are due wait for the definitions of others."""
PART = 100
"""How many documents are read at once."""

Target = tuple[str, str, str]
"""Who invokes, a revision, and a definition of it."""


class Preparing:
    """Has definitions compiled. When one is ready that was not waited for, the engine is rung."""

    def __init__(self, host: Host, invocable: Invocable) -> None:
        self._host = host
        self._invocable = invocable
        self._tasks: dict[Target, asyncio.Task[None]] = {}

    async def ready(self, due: Sequence[DueSchedule]) -> list[str]:
        """Those of some schedules, by id and in their order, whose definitions need not be waited for any more."""
        targets = await self._targets(due)
        wanted = {*targets.values()}
        new = wanted - self._tasks.keys()
        for target in new:
            self._tasks[target] = asyncio.create_task(self._prepare(target), name="prepare")
        if new:  # Those that were waited for before keep nobody waiting again.
            await asyncio.wait({self._tasks[target] for target in new}, timeout=PATIENCE_SECONDS)
        done = {target for target in wanted if self._tasks[target].done()}
        for target in done:
            del self._tasks[target]
        for target in new - done:
            self._tasks[target].add_done_callback(self._ring)
        return [each.id for each in due if each.version_id not in targets or targets[each.version_id] in done]

    async def close(self) -> None:
        """Wait for nothing any more."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def _targets(self, due: Sequence[DueSchedule]) -> Mapping[str, Target]:
        """What the documents of schedules invoke, by the ids of the documents."""
        version_ids, targets = sorted({each.version_id for each in due}), {}
        for start in range(0, len(version_ids), PART):
            async with self._host.db.read() as tx:
                versions = await version_store.get_some(tx, version_ids[start : start + PART])
            for version in versions.values():
                target = read_document(version.document)[0].invocation_target
                targets[version.id] = (version.actor_id, target.reference, target.definition)
            await asyncio.sleep(0)
        return targets

    async def _prepare(self, target: Target) -> None:
        """Compile a definition. What goes wrong does so again when it is invoked, and is told there."""
        actor_id, revision, definition = target
        invocation = Invocation(cause=self._host.ids(), actor_id=actor_id, revision=revision, definition=definition)
        try:
            await self._invocable.prepare(invocation)
        except BlobHubError:
            return
        except Exception:
            log.exception("definition_not_prepared", revision=revision, definition=definition)

    def _ring(self, _: object) -> None:
        self._host.bell.ring(DUE)
