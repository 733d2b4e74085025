"""The reasons of errors: each error has a status code of gRPC's, and a reason that the enum of its domain declares.

An error that has not would be raised, and answered as INTERNAL or with a reason that no document knows.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

import grpc
from blobhub.v1.error_pb2 import ErrorReason
from google.protobuf.descriptor import EnumDescriptor

from blobhub_server.blobtypes.contract import BlobType
from blobhub_server.errors import BlobHubError
from blobhub_server.start import StartError

CODES = frozenset(grpc.StatusCode.__members__) - {"OK"}
"""The names of the status codes that an error can have."""


class BrokenReason(StartError):
    """An error has a status code that there is not, or a reason that its domain does not declare."""


def reasons_of(enum: EnumDescriptor | None) -> set[str]:
    """The reasons of an enum, without their prefix and without the value that is never sent."""
    if enum is None:
        return set()
    prefix = enum.values[0].name.removesuffix("UNSPECIFIED")
    return {value.name.removeprefix(prefix) for value in enum.values[1:]}


def error_classes(kind: type[BlobHubError] = BlobHubError) -> Iterator[type[BlobHubError]]:
    """The classes of errors below one that state a domain, a code or a reason of their own."""
    for child in kind.__subclasses__():
        if vars(child).keys() & {"domain", "code", "reason"}:
            yield child
        yield from error_classes(child)


def require_declared(types: Collection[BlobType]) -> None:
    """Look at the errors that are loaded. Raises BrokenReason.

    A domain is `blobhub` or an installed type. Errors of types that are not installed may be loaded as well, and are left
    alone, unless they are in the package of one that is.
    """
    reasons = {BlobHubError.domain: reasons_of(ErrorReason.DESCRIPTOR)} | {
        item.name: reasons_of(item.reasons) for item in types
    }
    packages = {type(item).__module__.partition(".")[0] for item in types} - {__name__.partition(".")[0]}
    for kind in error_classes():
        name = f"{kind.__module__}.{kind.__qualname__}"
        if kind.code not in CODES:
            raise BrokenReason(f"the error {name} has the code {kind.code}, which is none of gRPC's for errors")
        if kind.domain not in reasons and kind.__module__.partition(".")[0] in packages:
            raise BrokenReason(f"the error {name} has the domain {kind.domain}, which is no installed blob type")
        # A class with the reason of the base class is a base itself.
        known = kind.reason == BlobHubError.reason or kind.domain not in reasons or kind.reason in reasons[kind.domain]
        if not known:
            raise BrokenReason(f"the error {name} has the reason {kind.reason}, which {kind.domain} does not declare")
