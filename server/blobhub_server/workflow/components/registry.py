"""The installed component types, by entry point."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from importlib.metadata import EntryPoint, entry_points

from blobhub_server.start import StartError
from blobhub_server.workflow.components.contract import Component

GROUP = "blobhub.components"


class DuplicateComponent(StartError):
    """Two distributions bring a component of the same type."""


class ComponentRegistry:
    """All component types, and which of them lack what they need."""

    def __init__(self, components: Iterable[Component], lacking: Iterable[str] = ()) -> None:
        """`lacking` are the types that need what no blob type offers."""
        self._components = {component.type: component for component in components}
        self.lacking = frozenset(lacking)

    @classmethod
    def load(cls, points: Iterable[EntryPoint] | None = None) -> ComponentRegistry:
        """Load every entry point of the group. Raises DuplicateComponent."""
        found: dict[str, EntryPoint] = {}
        for point in entry_points(group=GROUP) if points is None else points:
            other = found.setdefault(point.name, point)
            if other.value != point.value:
                raise DuplicateComponent(f"the component {point.name} comes from both {other.value} and {point.value}")
        return cls(point.load()() for point in found.values())

    @property
    def needs(self) -> tuple[type, ...]:
        """The capabilities that any of them needs."""
        return tuple(dict.fromkeys(kind for component in self for kind in component.needs))

    def match_offers(self, offered: Collection[object]) -> ComponentRegistry:
        """The same types, where these capabilities are offered."""
        return self.mark_lacking(item.type for item in self if not item.needs.keys() <= {*offered})

    def mark_lacking(self, lacking: Iterable[str]) -> ComponentRegistry:
        """The same types, of which those that are named lack what they need."""
        return ComponentRegistry(self, lacking)

    def get(self, type_: str) -> Component | None:
        """The component of a type."""
        return self._components.get(type_)

    def __iter__(self) -> Iterator[Component]:
        return iter(self._components.values())
