"""NotesService on the wire."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import AsyncIterator

from blobhub_server.blobtypes.access import Caller, Place, Resolution
from blobhub_server.blobtypes.call import Call
from blobhub_server.blobtypes.capabilities import Invocable, Invocation
from blobhub_server.blobtypes.contract import Host, RevisionView
from blobhub_server.db.engine import Transaction
from blobhub_server.errors import AlreadyExists, InvalidValue, NotFound
from blobhub_server.rpc.wire import to_timestamp
from stranger.notes.v1 import notes_pb2 as pb

from stranger_notes import store
from stranger_notes.capitals import CAPITALIZE
from stranger_notes.errors import NAME, EmptyNote
from stranger_notes.store import Run
from stranger_notes.texts import Texts

LIMIT = "notes.notes_per_revision"


class NotesService:
    """Writes, reads and runs notes."""

    def __init__(self, host: Host, texts: Texts, invocable: Invocable, session: str) -> None:
        self._host = host
        self._texts = texts
        self._invocable = invocable
        self._session = session

    async def PutNote(self, request: pb.PutNoteRequest, call: Call[RevisionView]) -> pb.PutNoteResponse:
        revision = call.resource.require_type(NAME)
        stored = await self._host.contents.upload(request.text.encode())

        async def make(tx: Transaction) -> pb.PutNoteResponse:
            try:
                _, etag = await self._host.contents.put(
                    tx, revision.id, request.name, stored, limit=LIMIT, etag=request.etag, create_only=request.create_only
                )
            except AlreadyExists:
                raise AlreadyExists("note", request.name) from None
            except NotFound as error:
                raise (NotFound("note", request.name) if error.kind == "entry" else error) from None
            return pb.PutNoteResponse(revision_etag=etag)

        return await call.once(make)

    async def GetNote(self, request: pb.GetNoteRequest, call: Call[RevisionView]) -> pb.GetNoteResponse:
        revision = call.resource.require_type(NAME)
        return pb.GetNoteResponse(text=await self._texts.read_note(revision.id, request.name))

    async def UploadNote(
        self, requests: AsyncIterator[pb.UploadNoteRequest], call: Call[RevisionView]
    ) -> pb.UploadNoteResponse:
        revision = call.resource.require_type(NAME)
        first = await anext(requests)
        if not first.name:
            raise InvalidValue("name", "the first message has to name the note")
        text = first.text + "".join([request.text async for request in requests])
        stored = await self._host.contents.upload(text.encode())

        async def make(tx: Transaction) -> pb.UploadNoteResponse:
            _, etag = await self._host.contents.put(tx, revision.id, first.name, stored, limit=LIMIT)
            return pb.UploadNoteResponse(revision_etag=etag)

        return await call.once(make)

    async def SignNote(self, request: pb.SignNoteRequest, call: Call[RevisionView]) -> pb.SignNoteResponse:
        revision = call.resource.require_type(NAME)
        entry = await self._texts.find(revision.id, request.name)
        body = await self._host.credentials.use(revision.organization_id, revision.blob_id, request.credential)
        key = body.get("key")
        if not isinstance(key, str):
            raise InvalidValue("credential", "has no text under `key`")
        signed = hmac.new(key.encode(), await self._host.contents.read(entry.digest), hashlib.sha256)
        return pb.SignNoteResponse(signature=signed.hexdigest())

    async def RunNote(self, request: pb.RunNoteRequest, call: Call[RevisionView]) -> pb.RunNoteResponse:
        revision = call.resource.require_type(NAME)
        entry = await self._texts.find(revision.id, request.name)
        if entry.size == 0:
            raise EmptyNote(request.name)
        text = (await self._host.contents.read(entry.digest)).decode()

        run_id = self._host.ids()
        invocation = Invocation(
            cause=run_id,
            actor_id=call.caller.actor_id,
            revision=request.workflow,
            definition=request.definition,
            session=self._session,
            inputs={request.input: text} if request.input else {},
        )
        await self._invocable.prepare(invocation)

        async def make(tx: Transaction) -> pb.RunNoteResponse:
            # No foreign key keeps the blob; without the lock the row might be stored after all others were collected.
            if not await self._host.contents.pin(tx, revision.blob_id):
                raise NotFound("revision", request.revision)
            invoked = await self._invocable.invoke(tx, invocation)
            run = Run(
                id=run_id,
                organization_id=revision.organization_id,
                blob_id=revision.blob_id,
                revision_id=revision.id,
                note=request.name,
                execution_id=invoked.execution_id,
                create_time=self._host.clock(),
                outcome=invoked.state if invoked.end_time else "",
                superseded=False,
            )
            await store.insert(tx, run)
            return pb.RunNoteResponse(run_id=run_id, execution_id=invoked.execution_id, session_id=invoked.session_id)

        return await call.once(make)

    async def CapitalizeNote(self, request: pb.CapitalizeNoteRequest, call: Call[RevisionView]) -> pb.CapitalizeNoteResponse:
        revision = call.resource.require_type(NAME)
        entry = await self._texts.find(revision.id, request.name)

        async def make(tx: Transaction) -> pb.CapitalizeNoteResponse:
            operation = await self._host.operations.begin(
                tx,
                kind=CAPITALIZE,
                revision=revision,
                actor_id=call.caller.actor_id,
                data={"note": request.name},
                digest=entry.digest,
            )
            return pb.CapitalizeNoteResponse(operation=operation)

        return await call.once(make)

    async def GetNoteRun(self, request: pb.GetNoteRunRequest, call: Call[Run]) -> pb.GetNoteRunResponse:
        run = call.resource
        return pb.GetNoteRunResponse(
            run=pb.NoteRun(
                id=run.id,
                blob_id=run.blob_id,
                revision_id=run.revision_id or "",
                note=run.note,
                execution_id=run.execution_id,
                create_time=to_timestamp(run.create_time),
                outcome=run.outcome,
                superseded=run.superseded,
            )
        )


async def locate_run(host: Host, value: str, _caller: Caller) -> Resolution[Run] | None:
    """The locator of runs: roles on a run are those on its blob."""
    async with host.db.read() as tx:
        run = await store.get(tx, value.lower())
    if run is None:
        return None
    return Resolution(place=Place(organization_id=run.organization_id, blob_id=run.blob_id), resource=run, never_public=True)
