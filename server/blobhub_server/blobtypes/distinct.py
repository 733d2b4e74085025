"""Names that only one part of the server may have. Of two parts that bring one name, one would be hidden by the other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from blobhub_server.blobtypes.contract import Opened
from blobhub_server.start import StartError


class DuplicateName(StartError):
    """Two parts of the server bring something of one name."""


def require_distinct(brought: Mapping[str, Opened]) -> None:
    """Raise DuplicateName when a service, a kind of resource or of operation, or a limit is brought twice.

    The keys are the owners.
    """
    items = brought.items()
    require_one_owner("gRPC service", ((service.full_name, owner) for owner, own in items for service in own.services))
    require_one_owner("kind of resource", ((kind, owner) for owner, own in items for kind in own.locators))
    require_one_owner("kind of operation", ((kind, owner) for owner, own in items for kind in own.operations))
    limits = ((limit.name, owner) for owner, own in items for limit in (*own.limits, *own.organization_limits))
    require_one_owner("limit", limits)


def require_one_owner(what: str, names: Iterable[tuple[str, str]]) -> None:
    """Raise DuplicateName when a name comes twice among pairs of a name and its owner; `what` says what it names."""
    owners: dict[str, str] = {}
    for name, owner in names:
        if name in owners:
            raise DuplicateName(f"{name} is a {what} of both {owners[name]} and {owner}; remove one")
        owners[name] = owner
