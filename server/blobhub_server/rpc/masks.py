"""Update masks: which fields of a request are to be changed (https://google.aip.dev/134)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from google.protobuf.field_mask_pb2 import FieldMask

from blobhub_server.errors import InvalidValue


class UpdateRequest(Protocol):
    """A request of an Update method."""

    @property
    def update_mask(self) -> FieldMask:
        """What to change."""

    def ListFields(self) -> Sequence[tuple[Any, Any]]:
        """The fields that are set, and their values."""


def changed_fields(request: UpdateRequest, *fields: str) -> set[str]:
    """The names among `fields` that the request changes: those in its mask, or, when it is empty, those that are set.

    Raises InvalidValue for a path into a field, which the constraint in the protos accepts: fields change as a whole.
    """
    paths = set(request.update_mask.paths)
    if not paths:
        return {field.name for field, _ in request.ListFields()} & set(fields)
    if not paths <= set(fields):
        raise InvalidValue("update_mask", f"names {', '.join(fields)} as a whole")
    return paths
