"""Drawings of definitions, for GetDefinitionGraph."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from blobhub.v1 import definition_pb2 as pb

from blobhub_server.blobtypes.access import Role
from blobhub_server.blobtypes.call import Call
from blobhub_server.blobtypes.contract import Host, RevisionView
from blobhub_server.blobtypes.values import Entry
from blobhub_server.drawing import to_dot, to_mermaid
from blobhub_server.errors import ContentLost, NotFound, Violation
from blobhub_server.workflow.definitions.document import InvalidDefinition
from blobhub_server.workflow.definitions.finder import Definitions
from blobhub_server.workflow.definitions.picture import Counts, Picture, draw
from blobhub_server.workflow.definitions.reader import MAX_COMPONENTS, MAX_CONNECTIONS, parse
from blobhub_server.workflow.errors import DefinitionNotRunnable
from blobhub_server.workflow.log.tally import tally_of
from blobhub_server.workflow.rules.execution import Execution
from blobhub_server.workflow.store import execution as execution_store

MERMAID_COMPONENTS, MERMAID_CONNECTIONS, MERMAID_CHARACTERS = 300, 500, 50_000
"""What a drawing for Mermaid has at most. The others are its `maxEdges` and `maxTextSize`, which no drawing can raise:
https://mermaid.js.org/config/schema-docs/config.html"""


class DefinitionGraphs:
    """Draws definitions, and executions on them."""

    def __init__(self, host: Host, definitions: Definitions) -> None:
        self._host = host
        self._definitions = definitions

    async def draw(
        self, request: pb.GetDefinitionGraphRequest, call: Call[object], revision: RevisionView, entry: Entry
    ) -> pb.GetDefinitionGraphResponse:
        """The answer to a request. Raises NotFound, DefinitionNotRunnable, ContentLost."""
        party, execution, counts = call.caller.party, None, None
        if request.execution:
            execution = await self._find(request.execution, call, revision, entry)
            counts = (await tally_of(self._host.db, execution, party)).components
        digest = execution.definition_digest if execution else entry.digest
        document = await self._read(digest, entry)
        title = f"execution {execution.id}: {execution.state}" if execution else ""
        make = partial(render, document, request.format, counts, title)
        text, picture = await self._definitions.turnstile.run(party, make)
        return pb.GetDefinitionGraphResponse(
            text=text,
            digest=digest,
            execution_sequence=execution.last_execution_sequence if execution else 0,
            omitted_components=picture.omitted_components,
            omitted_connections=picture.omitted_connections,
        )

    async def _find(self, id_: str, call: Call[object], revision: RevisionView, entry: Entry) -> Execution:
        """An execution of a definition. To those without a role on the blob there is none: executions are never public."""
        async with self._host.db.read() as tx:
            found = await execution_store.get(tx, id_.lower())
        is_there = found is not None and {found.blob_id, found.definition_blob_id} == {revision.blob_id}
        if found is None or not is_there or found.definition_alias != entry.name or call.role < Role.READ:
            raise NotFound("execution", id_, "ListExecutions lists those of the blob, each with the alias of its definition")
        return found

    async def _read(self, digest: str, entry: Entry) -> bytes:
        try:
            return await self._host.contents.read(digest)
        except ContentLost:
            if digest == entry.digest:
                raise
            # A draft's definition was replaced, and what nothing refers to any more is collected.
            raise NotFound("definition", digest, "the document that the execution ran is not kept any more") from None


def render(
    document: bytes, format_: pb.DefinitionGraphFormat.ValueType, counts: Mapping[str, Counts] | None, title: str
) -> tuple[str, Picture]:
    """A document, drawn. Raises DefinitionNotRunnable."""
    try:
        definition = parse(document)
    except InvalidDefinition as error:
        raise DefinitionNotRunnable([Violation(problem.path, problem.message) for problem in error.problems]) from None
    if format_ == pb.DEFINITION_GRAPH_FORMAT_DOT:
        picture = draw(
            definition, max_components=MAX_COMPONENTS, max_connections=MAX_CONNECTIONS, counts=counts, title=title
        )
        return to_dot(picture.drawing, "definition"), picture
    most = MERMAID_COMPONENTS
    while True:
        picture = draw(definition, max_components=most, max_connections=MERMAID_CONNECTIONS, counts=counts, title=title)
        text = to_mermaid(picture.drawing)
        if len(text) <= MERMAID_CHARACTERS:
            return text, picture
        most //= 2  # Names that are all signs take six characters for each.
