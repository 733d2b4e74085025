"""DefinitionService on the wire."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from blobhub.v1 import definition_pb2 as pb

from blobhub_server.blobtypes.access import Caller, Resolution
from blobhub_server.blobtypes.call import Call
from blobhub_server.blobtypes.contract import Host, RevisionView
from blobhub_server.blobtypes.reference import parse_within
from blobhub_server.blobtypes.values import Entry
from blobhub_server.cache import Cache
from blobhub_server.db.engine import Transaction
from blobhub_server.db.portion import MAX_PAGE_BYTES, count_within
from blobhub_server.errors import AlreadyExists, BlobHubError, NotFound, WrongBlobType
from blobhub_server.ids import NOTHING
from blobhub_server.rpc.paging import Page
from blobhub_server.rpc.wire import repeated, to_timestamp
from blobhub_server.turnstile import Party
from blobhub_server.workflow.definitions.document import InvalidDefinition, Problem, Severity
from blobhub_server.workflow.definitions.finder import Definitions
from blobhub_server.workflow.definitions.reader import invalid, parse
from blobhub_server.workflow.errors import TYPE, InvalidDefinitionContent
from blobhub_server.workflow.rules import limit
from blobhub_server.workflow.services.definition_graph import DefinitionGraphs
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
        severity=pb.DefinitionProblemSeverity.Value(f"DEFINITION_PROBLEM_SEVERITY_{problem.severity}"),
        component_id=problem.component_id or "",
        path=problem.path,
        line=problem.line,
        column=problem.column,
        message=problem.message,
    )


@dataclass(frozen=True, slots=True)
class LocatedDefinition:
    """What a reference to a definition leads to."""

    revision: RevisionView
    entry: Entry


async def locate_definition(host: Host, value: str, caller: Caller) -> Resolution[LocatedDefinition] | None:
    """The locator of definitions: by id, or by alias in a revision."""
    reference = parse_within(value)
    entry = None
    if reference.id:
        async with host.db.read() as tx:
            entry = await host.contents.get(tx, reference.id)
    found = await host.revisions.locate(entry.revision_id if entry else reference.revision or NOTHING, caller)
    revision = found.resource if found and isinstance(found.resource, RevisionView) else None
    if reference.alias:
        async with host.db.read() as tx:
            entry = await host.contents.find(tx, revision.id if revision else NOTHING, reference.alias)
    if found is None:
        return None
    located = _located(found.resource, entry, value)
    return Resolution(place=found.place, resource=located, never_public=found.never_public)


def _located(revision: RevisionView | BlobHubError, entry: Entry | None, value: str) -> LocatedDefinition | BlobHubError:
    """What a reference leads to in a revision, or the error for those who may see the blob."""
    if isinstance(revision, BlobHubError):
        return revision
    if revision.blob_type != TYPE:
        return WrongBlobType(revision.blob_type, TYPE)
    return NotFound("definition", value) if entry is None else LocatedDefinition(revision=revision, entry=entry)


class DefinitionService:
    """Stores, reads, checks and draws the definitions of workflow revisions."""

    def __init__(self, host: Host, definitions: Definitions) -> None:
        self._host = host
        self._definitions = definitions
        self._graphs = DefinitionGraphs(host, definitions)
        self._contents: Cache[bytes] = Cache(max_count=1024, max_bytes=16 << 20)
        """Typed messages, encoded, by the digest of the document that they stand for."""

    async def PutDefinition(self, request: pb.PutDefinitionRequest, call: Call[RevisionView]) -> pb.PutDefinitionResponse:
        revision = call.resource.require_type(TYPE)
        document = await self._document(request, request.WhichOneof("body") or "", call.caller.party)
        (await self._definitions.check(document, call.caller.party)).require_readable()
        stored = await self._host.contents.upload(document)

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
            except NotFound as error:
                instead = "ListDefinitions lists those of the draft"
                raise (NotFound("definition", request.alias, instead) if error.kind == "entry" else error) from None
            return pb.PutDefinitionResponse(definition=to_proto(entry), revision_etag=etag)

        return await call.once(make)

    async def _document(
        self, request: pb.PutDefinitionRequest | pb.CheckDefinitionRequest, form: str, party: Party
    ) -> bytes:
        """The document that a request holds in a form. Raises InvalidDefinitionContent when a message has none."""
        if form == "document":
            return request.document.encode()
        return await self._definitions.turnstile.run(party, lambda: to_document(request.content).encode())

    async def GetDefinition(self, request: pb.GetDefinitionRequest, call: Call[LocatedDefinition]) -> bytes:
        entry = call.resource.entry
        document = await self._host.contents.read(entry.digest)
        content = await self._contents.obtain(entry.digest, partial(self._content, document, call.caller.party))
        answer = pb.GetDefinitionResponse(definition=to_proto(entry), document=document.decode())
        return answer.SerializeToString() + repeated(pb.GetDefinitionResponse.CONTENT_FIELD_NUMBER, [content])

    async def _content(self, document: bytes, party: Party) -> tuple[bytes, int]:
        """The typed message of a document, encoded, and its bytes."""
        content = await self._definitions.turnstile.run(party, partial(_encoded_message, document))
        return content, len(content)

    async def ListDefinitions(
        self, request: pb.ListDefinitionsRequest, call: Call[RevisionView]
    ) -> pb.ListDefinitionsResponse:
        revision = call.resource.require_type(TYPE)
        page = Page.parse(request, revision.id, request.alias_prefix, request.order_by or "alias")
        async with self._host.db.scan(call.caller.party) as tx:
            found = await self._host.contents.list(
                tx,
                revision.id,
                after=page.after,
                limit=page.limit + 1,
                prefix=request.alias_prefix,
                descending=request.order_by == "alias desc",
            )
        items, token = await page.fill(found, lambda entry: entry.name, to_proto)
        return pb.ListDefinitionsResponse(definitions=items, next_page_token=token)

    async def DeleteDefinition(
        self, request: pb.DeleteDefinitionRequest, call: Call[LocatedDefinition]
    ) -> pb.DeleteDefinitionResponse:
        revision, entry = call.resource.revision, call.resource.entry

        async def make(tx: Transaction) -> pb.DeleteDefinitionResponse:
            try:
                etag = await self._host.contents.delete(tx, revision.id, entry.name, etag=request.etag)
            except NotFound:
                raise NotFound("definition", request.definition) from None
            return pb.DeleteDefinitionResponse(revision_etag=etag)

        return await call.once(make)

    async def CheckDefinition(
        self, request: pb.CheckDefinitionRequest, call: Call[RevisionView]
    ) -> pb.CheckDefinitionResponse:
        revision = call.resource.require_type(TYPE)
        form = request.WhichOneof("subject") or ""
        try:
            if form == "definition":
                entry = await self._definitions.find(revision.id, request.definition)
                document = await self._host.contents.read(entry.digest)
            else:
                document = await self._document(request, form, call.caller.party)
            verdict = await self._definitions.check(document, call.caller.party)
            problems, runnable = verdict.problems, verdict.is_runnable
        except InvalidDefinitionContent as error:
            # PutDefinition refuses such a message with the same words.
            problems, runnable = [invalid(broken.field, broken.message) for broken in error.violations], False
        make = partial(_report, problems, runnable=runnable)
        return await self._definitions.turnstile.run(call.caller.party, make)

    async def GetDefinitionGraph(
        self, request: pb.GetDefinitionGraphRequest, call: Call[LocatedDefinition]
    ) -> pb.GetDefinitionGraphResponse:
        return await self._graphs.draw(request, call, call.resource.revision, call.resource.entry)


def _encoded_message(document: bytes) -> bytes:
    """The typed message of a document; empty for one that cannot be read as a definition any more."""
    try:
        parse(document)
    except InvalidDefinition:
        return b""
    return to_message(document.decode()).SerializeToString()


def _report(problems: Sequence[Problem], *, runnable: bool) -> pb.CheckDefinitionResponse:
    """As many problems as fit a message. Where not all do, the errors go first."""
    made = [to_problem(problem) for problem in problems]
    if count_within((item.ByteSize() for item in made), MAX_PAGE_BYTES) < len(made):
        made = [to_problem(problem) for problem in sorted(problems, key=lambda item: item.severity is not Severity.ERROR)]
    fit = count_within((item.ByteSize() for item in made), MAX_PAGE_BYTES)
    return pb.CheckDefinitionResponse(runnable=runnable, problems=made[:fit])
