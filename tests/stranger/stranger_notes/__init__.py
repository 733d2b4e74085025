"""A blob type that BlobHub does not know: plain notes. Everything that a type can bring is here, once."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from blobhub_server.blobtypes.capabilities import Invocable
from blobhub_server.blobtypes.contract import BlobType, Check, Content, Given, Host, Limit, Opened, Service
from blobhub_server.config import Settings
from blobhub_server.errors import Violation
from blobhub_server.start import StartError
from stranger.notes.v1 import notes_pb2

from stranger_notes import store
from stranger_notes.capitals import CAPITALIZE, Capitals
from stranger_notes.errors import NAME
from stranger_notes.service import LIMIT, NotesService, locate_run
from stranger_notes.settings import NotesSettings
from stranger_notes.texts import NoteTexts, Texts

MOST = 3


class NotesType(BlobType):
    """Short texts under a name."""

    name = NAME
    title = "Notes"
    description = "Stores up to three short texts, none of them empty, and runs workflows with them."
    needs = (Invocable,)
    offers = (NoteTexts,)
    settings = NotesSettings
    reasons = notes_pb2.NotesErrorReason.DESCRIPTOR
    tables = store.TABLES
    migrations = store.MIGRATIONS
    descriptors = Path(notes_pb2.__file__).with_name("descriptors.binpb")

    @asynccontextmanager
    async def open(self, host: Host, given: Given) -> AsyncIterator[Opened]:
        """Nothing to start."""
        texts, invocable = Texts(host), given[Invocable]
        invocable.listen(store.end)
        settings = given[NotesSettings]
        service = NotesService(host, texts, invocable, settings.notes_session)
        capitals = Capitals(host, LIMIT, settings.notes_seconds_per_line)
        yield Opened(
            services=[Service("stranger.notes.v1.NotesService", service)],
            locators={"note_run": partial(locate_run, host)},
            dependents=store.dependents_on_revision,
            in_use=store.dependents_in_blob,
            collect=store.collect,
            limits=[Limit(name=LIMIT, description="Notes in a revision", default=100, held=host.contents.fullest)],
            offers={NoteTexts: texts},
            on_default_moved=store.supersede,
            operations={CAPITALIZE: capitals.perform},
        )

    async def validate(self, content: Content) -> list[Violation]:
        """Between one and three notes, each with text."""
        entries = await content.list()
        empty = [Violation(f"notes[{entry.name}]", "is empty") for entry in entries if entry.size == 0]
        if not 1 <= len(entries) <= MOST:
            empty.append(Violation("notes", f"must be 1 to {MOST}"))
        return empty

    def checks(self, settings: Settings, given: Given) -> list[Check]:
        """That a session can have the alias that is set."""
        alias = given[NotesSettings].notes_session

        async def look() -> str:
            if not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,41}", alias):
                raise StartError("BLOBHUB_NOTES_SESSION is not the alias of a session; unset it, or use `notes`, say")
            return f"notes are run in the session {alias}"

        return [Check("session", look)]
