"""What the scripts beside this one share: a connection, an organization and a blob of their own, definitions built by hand.

Every script takes ADDRESS (host:port of a running server) and KEY (an administrator's key) from the environment.
"""

import json
import os
import uuid

from blobhub.v1 import blob_pb2, definition_pb2, execution_pb2, organization_pb2, session_pb2
from blobhub_client import connect, reason
from google.protobuf import json_format

__all__ = ["ADDRESS", "KEY", "Place", "comp", "connect", "ctl", "data", "doc", "reason", "val"]

ADDRESS = os.environ.get("ADDRESS", "127.0.0.1:7443")
KEY = os.environ.get("KEY", "")


def comp(id_, type_, policy=None, **inputs):
    ports = [{"category": "data_input", "route": name, "value": value} for name, value in inputs.items()]
    made = {"id": id_, "category": type_.split(".")[0], "type": type_, "name": id_, "ports": ports}
    return made | ({"policy": policy} if policy else {})


def val(id_, alias, persistence="execution", **own):
    ports = [
        {"category": "data_input", "route": "alias", "value": alias},
        {"category": "data_input", "route": "persistence", "value": persistence},
    ]
    if "value" in own:
        ports.append({"category": "data_output", "route": "value", "value": own["value"]})
    return {"id": id_, "category": "data", "type": "data.value", "name": id_, "ports": ports}


_n = iter(range(10**9))


def ctl(source, target, route="next", id_=None):
    return {
        "id": id_ or f"c{next(_n)}",
        "source_id": source,
        "target_id": target,
        "source_port": "flow_output",
        "target_port": "flow_input",
        "route": route,
    }


def data(source, port, target, into):
    return {
        "id": f"d{next(_n)}",
        "source_id": source,
        "target_id": target,
        "source_port": port,
        "target_port": into,
        "route": "",
    }


def doc(components, connections, **more):
    made = {"type": "workflow_definition", "version": "1.0.1", "components": components, "connections": connections}
    return json.dumps(made | more)


class Place:
    """An organization and a workflow blob of their own."""

    def __init__(self, hub):
        self.hub = hub
        self.org = f"t2-{uuid.uuid4().hex[:12]}"
        self.blob = f"{self.org}/pipeline"
        self.draft = f"{self.blob}@draft"

    async def make(self):
        await self.hub.organizations.CreateOrganization(organization_pb2.CreateOrganizationRequest(alias=self.org))
        await self.hub.blobs.CreateBlob(
            blob_pb2.CreateBlobRequest(organization=self.org, alias="pipeline", type="blobhub.compute.workflow")
        )
        return self

    async def put(self, document, alias="workflow"):
        return await self.hub.definitions.PutDefinition(
            definition_pb2.PutDefinitionRequest(revision=self.draft, alias=alias, document=document)
        )

    async def check(self, document):
        return await self.hub.definitions.CheckDefinition(
            definition_pb2.CheckDefinitionRequest(revision=self.draft, document=document)
        )

    async def session(self):
        answer = await self.hub.sessions.CreateSession(session_pb2.CreateSessionRequest(revision=self.draft))
        return answer.session.id

    async def run(self, session_id, inputs=(), alias="workflow", timeout=30, **more):
        """Start and read to the end: (events, the execution as it ended)."""
        request = execution_pb2.RunExecutionRequest(session=session_id, spec={"definition": alias}, **more)
        for name, value in dict(inputs).items():
            item = request.spec.input_data.add(alias=name)
            json_format.ParseDict(value, item.value)
        events, ended = [], None
        async for message in self.hub.executions.RunExecution(request, timeout=timeout):
            events += message.events
            if message.HasField("execution"):
                ended = message.execution
        return events, ended
