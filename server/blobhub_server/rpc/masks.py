"""Update masks (https://google.aip.dev/134): which fields an update is about."""

from __future__ import annotations

from google.protobuf.message import Message


def masked(request: Message, *fields: str) -> frozenset[str]:
    """Those of `fields` that a request's `update_mask` names; where it names none, those that are set."""
    paths = request.update_mask.paths  # type: ignore[attr-defined]  # every update has one
    set_ = {field.name for field, _ in request.ListFields()}
    return frozenset(fields) & (set(paths) or set_)
