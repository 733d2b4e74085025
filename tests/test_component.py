"""What is installed: component types and blob types."""

from __future__ import annotations

from blobhub.v1 import blob_type_pb2, component_pb2
from served import Api


async def test_every_component_is_described(api: Api) -> None:
    listed = (await api.components.ListComponents(component_pb2.ListComponentsRequest())).components
    assert {item.type for item in listed} == {
        "data.value", "flow.delay", "flow.each", "flow.end", "flow.fail", "flow.join", "flow.loop", "flow.start",
        "flow.switch", "flow.try", "flow.wait", "genai.chat.openai",
        "http.request", "logic.code", "logic.expression", "model.infer", "task.call",
        "workflow.execute",
    }  # fmt: skip
    assert all(item.title and item.description and item.ports for item in listed)


async def test_blob_types_are_listed(anonymous: Api) -> None:
    listed = (await anonymous.blob_types.ListBlobTypes(blob_type_pb2.ListBlobTypesRequest())).blob_types
    assert {"blobhub.compute.workflow", "stranger.notes"} <= {item.name for item in listed}
