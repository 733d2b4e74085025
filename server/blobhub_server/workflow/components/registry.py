"""The installed component types, by entry point."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from importlib.metadata import EntryPoint, entry_points

from blobhub_server.start import StartError
from blobhub_server.workflow.components.contract import Component

GROUP = "blobhub.components"


class DuplicateComponent(StartError):
    """Two distributions bring a component of the same type."""


class ComponentRegistry:
    """All component types."""

    def __init__(self, components: Iterable[Component]) -> None:
        self._components = {component.type: component for component in components}

    @classmethod
    def load(cls, points: Iterable[EntryPoint] | None = None) -> ComponentRegistry:
        """Load every entry point of the group. Raises DuplicateComponent."""
        found: dict[str, EntryPoint] = {}
        for point in entry_points(group=GROUP) if points is None else points:
            other = found.setdefault(point.name, point)
            if other.value != point.value:
                raise DuplicateComponent(f"the component {point.name} comes from both {other.value} and {point.value}")
        return cls(point.load()() for point in found.values())

    def get(self, type_: str) -> Component | None:
        """The component of a type."""
        return self._components.get(type_)

    def __iter__(self) -> Iterator[Component]:
        return iter(self._components.values())
