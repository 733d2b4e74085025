"""The performer of `notes.capitalize`: long work on a note, whose outcome is written when it is done."""

from __future__ import annotations

import asyncio

from blobhub_server.blobtypes.contract import Host
from blobhub_server.blobtypes.operations import Finish, Work
from blobhub_server.db.engine import Transaction
from stranger.notes.v1 import notes_pb2 as pb

from stranger_notes.errors import EmptyNote

CAPITALIZE = "notes.capitalize"


class Capitals:
    """Puts notes into capitals, `seconds_per_line` for each line."""

    def __init__(self, host: Host, limit: str, seconds_per_line: float) -> None:
        self._host = host
        self._limit = limit
        self._seconds_per_line = seconds_per_line

    async def perform(self, work: Work) -> Finish:
        """Put the note of an operation into capitals, as it was when the operation was begun. Raises EmptyNote."""
        name: str = work.data["note"]
        lines = (await self._host.contents.read(work.digest)).decode().splitlines()
        if not lines:
            raise EmptyNote(name)
        made = []
        for line in lines:
            await work.report("capitalizing", len(made) / len(lines))
            await asyncio.sleep(self._seconds_per_line)
            made.append(line.upper())
        stored = await self._host.contents.upload("\n".join(made).encode())

        async def finish(tx: Transaction) -> pb.CapitalizedNote:
            _, etag = await self._host.contents.put(tx, work.revision_id, name, stored, limit=self._limit)
            return pb.CapitalizedNote(note=name, lines=len(lines), revision_etag=etag)

        return finish
