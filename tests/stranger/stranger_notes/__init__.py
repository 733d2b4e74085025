"""A blob type that BlobHub does not know: plain notes."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from blobhub_server.blobtypes.call import Call
from blobhub_server.blobtypes.contract import (
    BlobType,
    Content,
    Given,
    Host,
    Limit,
    Opened,
    RevisionView,
    Service,
    Transaction,
)
from blobhub_server.blobtypes.values import Entry
from blobhub_server.errors import InvalidValue, NotFound, Violation
from stranger.notes.v1 import notes_pb2 as pb

NAME = "stranger.notes"
MOST = 3
LIMIT = "notes.notes_per_revision"


class NotesService:
    """Writes and reads notes."""

    def __init__(self, host: Host) -> None:
        self._host = host

    async def PutNote(self, request: pb.PutNoteRequest, call: Call[RevisionView]) -> pb.PutNoteResponse:
        """See notes.proto."""
        revision = call.resource.of_type(NAME)
        stored = await self._host.contents.upload(request.text.encode())

        async def make(tx: Transaction) -> pb.PutNoteResponse:
            _, etag = await self._host.contents.put(tx, revision.id, request.name, stored, limit=LIMIT, etag=request.etag)
            return pb.PutNoteResponse(etag=etag)

        return await call.once(make)

    async def GetNote(self, request: pb.GetNoteRequest, call: Call[RevisionView]) -> pb.GetNoteResponse:
        """See notes.proto."""
        entry = await self._note(call.resource.of_type(NAME), request.name)
        return pb.GetNoteResponse(text=(await self._host.contents.read(entry.digest)).decode())

    async def UploadNote(
        self, requests: AsyncIterator[pb.UploadNoteRequest], call: Call[RevisionView]
    ) -> pb.UploadNoteResponse:
        """See notes.proto."""
        revision = call.resource.of_type(NAME)
        first = await anext(requests)
        if not first.name:
            raise InvalidValue("name", "the first message has to name the note")
        text = first.text + "".join([request.text async for request in requests])
        stored = await self._host.contents.upload(text.encode())

        async def make(tx: Transaction) -> pb.UploadNoteResponse:
            _, etag = await self._host.contents.put(tx, revision.id, first.name, stored, limit=LIMIT)
            return pb.UploadNoteResponse(etag=etag)

        return await call.once(make)

    async def SignNote(self, request: pb.SignNoteRequest, call: Call[RevisionView]) -> pb.SignNoteResponse:
        """See notes.proto."""
        revision = call.resource.of_type(NAME)
        entry = await self._note(revision, request.name)
        body = await self._host.credentials.use(revision.org_id, revision.blob_id, request.credential)
        key = body.get("key")
        if not isinstance(key, str):
            raise InvalidValue("credential", "has no text under `key`")
        signed = hmac.new(key.encode(), await self._host.contents.read(entry.digest), hashlib.sha256)
        return pb.SignNoteResponse(signature=signed.hexdigest())

    async def _note(self, revision: RevisionView, name: str) -> Entry:
        async with self._host.db.read() as tx:
            entry = await self._host.contents.find(tx, revision.id, name)
        if entry is None:
            raise NotFound("note", name)
        return entry


class NotesType(BlobType):
    """Short texts under a name."""

    name = NAME
    title = "Notes"
    description = "Stores up to three short texts, none of them empty."

    @asynccontextmanager
    async def open(self, host: Host, given: Given) -> AsyncIterator[Opened]:
        """Nothing to start."""
        yield Opened(
            services=[Service("stranger.notes.v1.NotesService", NotesService(host))],
            limits=[Limit(LIMIT, "Notes in a revision", 100, host.contents.fullest)],
        )

    async def validate(self, content: Content) -> list[Violation]:
        """Between one and three notes, each with text."""
        entries = await content.list()
        empty = [Violation(f"notes[{entry.name}]", "is empty") for entry in entries if entry.size == 0]
        if not 1 <= len(entries) <= MOST:
            empty.append(Violation("notes", f"must be 1 to {MOST}"))
        return empty
