"""What all languages meet: a server, what is stored on it for all of them, a large model, and the networks before it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import flows
import numpy as np
import onnx_models
import tasks
from blobhub.v1.blob_pb2 import CreateBlobRequest
from blobhub.v1.definition_pb2 import PutDefinitionRequest
from blobhub.v1.organization_pb2 import CreateOrganizationRequest
from blobhub_client import Client, connect
from onnx import helper, numpy_helper
from served import ServerProcess

SHARED, BLOB = "shared", "workflow"
ITEMS = 1_003
MODEL_BYTES = 20_000_000
IN_FLIGHT = 32
LOUD = 'for number in range(80):\n    emit_output("x" * 16000)\nset_data_output("result", 0)'
"""A script whose events are so large that a log of some has more bytes than all connections let through that are cut."""
QUEUE = "handoff"
DEFINITIONS = {
    "loud": flows.code(LOUD),
    "echo": flows.code('set_data_output("result", inputs.given)'),
    QUEUE: tasks.calls(QUEUE),
}


@dataclass(frozen=True)
class Stage:
    """A server, and a file with a large model."""

    address: str
    key: str
    model: Path


@asynccontextmanager
async def staged(folder: Path) -> AsyncIterator[Stage]:
    """Run a server with what the suites read, which no suite changes."""
    model = folder / "model.onnx"
    model.write_bytes(large_model())
    server = ServerProcess(folder / "data", fresh=True, log=folder / "log", log_level="info")
    async with server.running():
        async with connect(server.address, server.admin_key) as hub:
            await _fill(hub)
        yield Stage(address=server.address, key=server.admin_key, model=model)


def large_model() -> bytes:
    """A model of 20 MB: it adds the sum of many numbers."""
    weights = np.random.default_rng(1).random(MODEL_BYTES // 4, np.float32)
    nodes = [helper.make_node("ReduceSum", ["weights"], ["sum"], keepdims=0), helper.make_node("Add", ["x", "sum"], ["y"])]
    return onnx_models.model(nodes, initializer=[numpy_helper.from_array(weights, "weights")]).SerializeToString()


async def _fill(hub: Client) -> None:
    await hub.organizations.CreateOrganization(CreateOrganizationRequest(alias=SHARED))
    aliases = iter([BLOB, *(f"item-{number:04}" for number in range(ITEMS - 1))])

    async def create() -> None:
        for alias in aliases:
            await hub.blobs.CreateBlob(CreateBlobRequest(organization=SHARED, alias=alias, type="blobhub.compute.workflow"))

    await asyncio.gather(*(create() for _ in range(IN_FLIGHT)))
    for alias, document in DEFINITIONS.items():
        request = PutDefinitionRequest(revision=f"{SHARED}/{BLOB}@draft", alias=alias, document=document)
        await hub.definitions.PutDefinition(request)
