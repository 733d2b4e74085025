"""The order in which blob types are opened: a type comes after those that offer what it needs or wants."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise

from blobhub_server.blobtypes.contract import BlobType
from blobhub_server.start import StartError


class CapabilityMissing(StartError):
    """A blob type needs a capability that no installed type offers."""


class CapabilityAmbiguous(StartError):
    """Two blob types offer the same capability."""


class CircularNeeds(StartError):
    """Blob types need each other's capabilities in a circle."""


def opening_order(types: Iterable[BlobType]) -> list[BlobType]:
    """The types, each after those that offer what it needs or wants, otherwise by name.

    Raises CapabilityMissing, CapabilityAmbiguous, CircularNeeds.
    """
    by_name = {item.name: item for item in sorted(types, key=lambda item: item.name)}
    offered_by = _offered_by(by_name.values())
    sorter: TopologicalSorter[str] = TopologicalSorter()
    for item in by_name.values():
        sorter.add(item.name, *(_provider(item, kind, offered_by).name for kind in item.needs))
        sorter.add(item.name, *(offered_by[kind].name for kind in item.wants if kind in offered_by))
    try:
        return [by_name[name] for name in sorter.static_order()]
    except CycleError as error:
        # Each name in the circle is needed by the one after it.
        circle = [by_name[name] for name in reversed(error.args[1])]
        raise CircularNeeds(f"blob types need each other in a circle: {_describe(circle, offered_by)}") from None


def _offered_by(types: Iterable[BlobType]) -> Mapping[type, BlobType]:
    found: dict[type, BlobType] = {}
    for item in types:
        for kind in item.offers:
            other = found.setdefault(kind, item)
            if other is not item:
                raise CapabilityAmbiguous(
                    f"the blob types {other.name} and {item.name} both offer {kind.__name__}; remove one of them"
                )
    return found


def _provider(item: BlobType, kind: type, offered_by: Mapping[type, BlobType]) -> BlobType:
    if kind not in offered_by:
        raise CapabilityMissing(
            f"the blob type {item.name} needs {kind.__name__}, which no installed blob type offers; install one that does"
        )
    return offered_by[kind]


def _describe(circle: list[BlobType], offered_by: Mapping[type, BlobType]) -> str:
    steps = []
    for item, provider in pairwise(circle):
        kind = next(kind for kind in (*item.needs, *item.wants) if offered_by.get(kind) is provider)
        steps.append(f"{item.name} needs {kind.__name__} of {provider.name}")
    return ", ".join(steps)
