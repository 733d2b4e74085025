"""The installed component types, by entry point."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from importlib.metadata import EntryPoint, entry_points

from blobhub_server.start import StartError
from blobhub_server.workflow.components.contract import Component, ComponentKind, EffectComponent, PureComponent

GROUP = "blobhub.components"


class DuplicateComponent(StartError):
    """Two distributions bring a component of the same type."""


class BrokenComponent(StartError):
    """A component does not load, or is not what its entry point says."""


class ComponentRegistry:
    """All component types, and which of them lack what they need."""

    def __init__(self, components: Iterable[Component], lacking: Iterable[str] = ()) -> None:
        """`lacking` are the types that need what no blob type offers."""
        self._components = {component.type: component for component in components}
        self.lacking = frozenset(lacking)

    @classmethod
    def load(cls, points: Iterable[EntryPoint] | None = None) -> ComponentRegistry:
        """Load every entry point of the group. Raises DuplicateComponent, BrokenComponent."""
        found: dict[str, EntryPoint] = {}
        for point in entry_points(group=GROUP) if points is None else points:
            other = found.setdefault(point.name, point)
            if other.value != point.value:
                raise DuplicateComponent(f"the component {point.name} comes from both {_origin(other)} and {_origin(point)}")
        return cls(map(_load, found.values()))

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


def _origin(point: EntryPoint) -> str:
    """Where a component comes from: its class, and the distribution that brings it."""
    return f"{point.value} of {point.dist.name} {point.dist.version}" if point.dist else point.value


def _load(point: EntryPoint) -> Component:
    said = f"the component {point.name}, {_origin(point)},"
    try:
        made = point.load()()
    except Exception as error:
        raise BrokenComponent(f"{said} does not load: {error}") from error
    if not isinstance(made, Component):
        raise BrokenComponent(f"{said} is no component: its class is none of blobhub_server.workflow.components.contract")
    if made.type != point.name:
        raise BrokenComponent(f"{said} says that its type is {made.type}: its entry point has to have that name")
    base = {ComponentKind.PURE: PureComponent, ComponentKind.EFFECT: EffectComponent}.get(made.kind, Component)
    if not isinstance(made, base):
        raise BrokenComponent(f"{said} is of the kind {made.kind.value!r}, and no {base.__name__}")
    return made
