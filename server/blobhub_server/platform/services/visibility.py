"""Visibility on the wire."""

from __future__ import annotations

from blobhub.v1 import blob_pb2 as pb

from blobhub_server.platform.rules.visibility import PRIVATE, PUBLIC

_TO = {PRIVATE: pb.VISIBILITY_PRIVATE, PUBLIC: pb.VISIBILITY_PUBLIC}
_FROM = {number: name for name, number in _TO.items()}


def to_visibility(visibility: str) -> pb.Visibility.ValueType:
    """As the enum's value."""
    return _TO[visibility]


def from_visibility(visibility: pb.Visibility.ValueType, *, unset: str = PRIVATE) -> str:
    """From the enum's value; `unset` stands for the unspecified one."""
    return _FROM.get(visibility, unset)
