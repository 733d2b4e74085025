"""Values that blob types, rules and stores share. This module is pure: it imports no SQL, gRPC or protobuf."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Entry:
    """A named piece of a revision's content. `digest` is SHA-256 in lower-case hex, `size` is in bytes."""

    id: str
    revision_id: str
    name: str
    digest: str
    size: int
    create_time: datetime
    update_time: datetime


@dataclass(frozen=True, slots=True)
class Dependents:
    """What depends on a revision or runs in a blob: things of one kind, their number, and the ids of the first hundred."""

    kind: str
    count: int
    ids: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class QueueView:
    """What a blob type sees of the queue that a call is about. It is no row: every name in an organization is a queue's."""

    organization_id: str
    name: str
