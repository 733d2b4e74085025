"""DefinitionService on the wire."""

from __future__ import annotations

from blobhub.v1 import definition_pb2 as pb

from blobhub_server.blobtypes.call import Call
from blobhub_server.blobtypes.contract import Host, RevisionView
from blobhub_server.blobtypes.values import Entry
from blobhub_server.db.engine import Transaction
from blobhub_server.errors import AlreadyExists, NotFound
from blobhub_server.rpc.paging import Page
from blobhub_server.rpc.wire import to_timestamp
from blobhub_server.workflow.definitions.document import Problem
from blobhub_server.workflow.definitions.finder import Definitions
from blobhub_server.workflow.errors import TYPE
from blobhub_server.workflow.rules import limit
from blobhub_server.workflow.services.document import to_document, to_message


def to_proto(entry: Entry) -> pb.Definition:
    """A definition's record as its message."""
    return pb.Definition(
        id=entry.id,
        alias=entry.name,
        revision_id=entry.revision_id,
        digest=entry.digest,
        size=entry.size,
        create_time=to_timestamp(entry.create_time),
        update_time=to_timestamp(entry.update_time),
    )


def to_problem(problem: Problem) -> pb.DefinitionProblem:
    """A problem as its message."""
    return pb.DefinitionProblem(
        type=pb.DefinitionProblemType.Value(f"DEFINITION_PROBLEM_TYPE_{problem.type}"),
        component_id=problem.component_id or "",
        path=problem.path,
        message=problem.message,
    )


class DefinitionService:
    """Stores, reads and checks the definitions of workflow revisions."""

    def __init__(self, host: Host, definitions: Definitions) -> None:
        self._host = host
        self._definitions = definitions

    async def PutDefinition(self, request: pb.PutDefinitionRequest, call: Call[RevisionView]) -> pb.PutDefinitionResponse:
        revision = call.resource.require_type(TYPE)
        document = self._document(request)
        stored = await self._host.contents.upload(document.encode())

        async def make(tx: Transaction) -> pb.PutDefinitionResponse:
            try:
                entry, etag = await self._host.contents.put(
                    tx,
                    revision.id,
                    request.alias,
                    stored,
                    limit=limit.DEFINITIONS,
                    etag=request.etag,
                    create_only=request.create_only,
                )
            except AlreadyExists:
                raise AlreadyExists("definition", request.alias) from None
            return pb.PutDefinitionResponse(definition=to_proto(entry), revision_etag=etag)

        return await call.once(make)

    def _document(self, request: pb.PutDefinitionRequest) -> str:
        typed = request.WhichOneof("body") == "content"
        document = to_document(request.content) if typed else request.document
        self._definitions.require_shape(document.encode())
        to_message(document)
        return document

    async def GetDefinition(self, request: pb.GetDefinitionRequest, call: Call[RevisionView]) -> pb.GetDefinitionResponse:
        revision = call.resource.require_type(TYPE)
        entry = await self._definitions.find(revision.id, request.definition)
        document = (await self._host.contents.read(entry.digest)).decode()
        return pb.GetDefinitionResponse(definition=to_proto(entry), document=document, content=to_message(document))

    async def ListDefinitions(
        self, request: pb.ListDefinitionsRequest, call: Call[RevisionView]
    ) -> pb.ListDefinitionsResponse:
        revision = call.resource.require_type(TYPE)
        page = Page.parse(request, revision.id)
        async with self._host.db.read() as tx:
            found = await self._host.contents.list(tx, revision.id, after=page.after, limit=page.limit + 1)
        items, token = page.cut(found, lambda entry: entry.name)
        return pb.ListDefinitionsResponse(definitions=map(to_proto, items), next_page_token=token)

    async def DeleteDefinition(
        self, request: pb.DeleteDefinitionRequest, call: Call[RevisionView]
    ) -> pb.DeleteDefinitionResponse:
        revision = call.resource.require_type(TYPE)

        async def make(tx: Transaction) -> pb.DeleteDefinitionResponse:
            entry = await self._host.contents.find(tx, revision.id, request.definition)
            if entry is None:
                raise NotFound("definition", request.definition)
            etag = await self._host.contents.delete(tx, revision.id, entry.name, etag=request.etag)
            return pb.DeleteDefinitionResponse(revision_etag=etag)

        return await call.once(make)

    async def CheckDefinition(
        self, request: pb.CheckDefinitionRequest, call: Call[RevisionView]
    ) -> pb.CheckDefinitionResponse:
        revision = call.resource.require_type(TYPE)
        subject = request.WhichOneof("subject")
        if subject == "definition":
            entry = await self._definitions.find(revision.id, request.definition)
            compiled = await self._definitions.load(entry.digest)
        else:
            document = request.document if subject == "document" else to_document(request.content)
            compiled = self._definitions.compile(document.encode())
        problems = [to_problem(problem) for problem in compiled.problems]
        return pb.CheckDefinitionResponse(runnable=not problems, problems=problems)
