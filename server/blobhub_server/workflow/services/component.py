"""ComponentService on the wire."""

from __future__ import annotations

from blobhub.v1 import component_pb2 as pb

from blobhub_server.blobtypes.call import Call
from blobhub_server.workflow.components.contract import Component
from blobhub_server.workflow.components.registry import ComponentRegistry


def to_proto(component: Component) -> pb.ComponentType:
    """A component type as its message."""
    return pb.ComponentType(
        type=component.type,
        category=component.category,
        title=component.title,
        description=component.description,
        ports=[
            pb.ComponentPort(
                category=port.category,
                route=port.route,
                value_type=port.value_type or "",
                required=port.required,
                description=port.description,
            )
            for port in component.ports
        ],
        routes=component.routes,
        open_ports=component.open_ports,
    )


class ComponentService:
    """Lists the installed component types."""

    def __init__(self, registry: ComponentRegistry) -> None:
        self._answer = pb.ListComponentsResponse(
            components=[to_proto(component) for component in sorted(registry, key=lambda item: item.type)]
        )

    async def ListComponents(self, request: pb.ListComponentsRequest, call: Call[None]) -> pb.ListComponentsResponse:
        return self._answer
