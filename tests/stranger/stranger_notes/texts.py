"""What notes offer to other blob types: the texts of notes."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from blobhub_server.blobtypes.contract import Host
from blobhub_server.blobtypes.values import Entry
from blobhub_server.errors import NotFound


@runtime_checkable
class NoteTexts(Protocol):
    """The capability: a type that needs it imports this protocol, and nothing else of this distribution."""

    async def read_note(self, revision_id: str, name: str) -> str:
        """The text of a note in a revision. Raises NotFound, ContentLost."""


class Texts(NoteTexts):
    """Reads notes from the content of revisions."""

    def __init__(self, host: Host) -> None:
        self._host = host

    async def find(self, revision_id: str, name: str) -> Entry:
        """The entry of a note. Raises NotFound."""
        async with self._host.db.read() as tx:
            entry = await self._host.contents.find(tx, revision_id, name)
        if entry is None:
            raise NotFound("note", name)
        return entry

    async def read_note(self, revision_id: str, name: str) -> str:
        entry = await self.find(revision_id, name)
        return (await self._host.contents.read(entry.digest)).decode()
