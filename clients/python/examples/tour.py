"""The tour: a workflow from nothing, run and watched.

KEY=bhk_… python clients/python/examples/tour.py 127.0.0.1:7443 demo/document_summary.json
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from blobhub.v1.blob_pb2 import CreateBlobRequest
from blobhub.v1.definition_pb2 import CheckDefinitionRequest, PutDefinitionRequest
from blobhub.v1.execution_pb2 import ExecutionInput, ExecutionSpec, RunExecutionRequest
from blobhub.v1.organization_pb2 import CreateOrganizationRequest
from blobhub.v1.revision_pb2 import CommitRevisionRequest, PublishRevisionRequest
from blobhub.v1.session_object_pb2 import GetSessionObjectRequest
from blobhub.v1.session_pb2 import CreateSessionRequest
from blobhub_client import Client, connect, get_value, set_value


async def prepare(hub: Client, organization: str, document: str) -> str:
    """Make an organization, a workflow blob, a published revision of it, and a session on that; return the session's id."""
    await hub.organizations.CreateOrganization(CreateOrganizationRequest(alias=organization))
    made = await hub.blobs.CreateBlob(
        CreateBlobRequest(organization=organization, alias="pipeline", type="blobhub.compute.workflow")
    )
    print("created", made.blob.type, made.blob.alias)

    draft = f"{organization}/pipeline@draft"
    await hub.definitions.PutDefinition(PutDefinitionRequest(revision=draft, alias="document_summary", document=document))
    checked = await hub.definitions.CheckDefinition(CheckDefinitionRequest(revision=draft, definition="document_summary"))
    if not checked.runnable:
        sys.exit(f"the definition cannot run: {checked.problems}")
    print("uploaded document_summary, which can run")

    commit = await hub.revisions.CommitRevision(CommitRevisionRequest(revision=draft, comment="Summarise a document"))
    snapshot = await hub.revisions.PublishRevision(PublishRevisionRequest(revision=commit.revision.id, label="first"))
    print("published snapshot", snapshot.revision.number)

    opened = await hub.sessions.CreateSession(CreateSessionRequest(revision=f"{organization}/pipeline@1"))
    return opened.session.id


async def main(address: str, definition: str) -> None:
    """Print a line for each step, and one for each event."""
    async with connect(address, os.environ["KEY"]) as hub:
        session = await prepare(hub, os.environ.get("ORGANIZATION", "acme"), definition)
        document = ExecutionInput(alias="document")
        set_value(document, "# Title\nSome words.")
        spec = ExecutionSpec(definition="document_summary", input_data=[document])
        async for event in hub.run(RunExecutionRequest(session=session, spec=spec)):
            print("event", event.execution_sequence, event.type, event.processor.processor_id or "-")
        found = await hub.session_objects.GetSessionObject(GetSessionObjectRequest(session=session, alias="summary"))
        summary = get_value(found.session_object)
        print("summary", summary["kind"], summary["sections"], summary["beginning"])


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2]).read_text()))
