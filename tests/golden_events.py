"""Events as golden files have them: what is the same each time."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from blobhub.v1 import event_pb2
from google.protobuf import json_format

FOLDER = Path(__file__).parent / "golden"
CHANGES_EACH_TIME = frozenset(
    {
        *("id", "session_id", "execution_id", "revision_id", "definition_id", "create_time", "elapsed", "session_sequence"),
        *("retry_time", "wake_time"),
    }
)


def shown(event: event_pb2.Event) -> dict[str, Any]:
    """What of an event is the same each time."""
    return _without(json_format.MessageToDict(event, preserving_proto_field_name=True))


def lines(events: Iterable[dict[str, Any]]) -> list[str]:
    """Events that are shown, as lines of a file."""
    return [json.dumps(event, ensure_ascii=False, sort_keys=True) for event in events]


def golden(name: str) -> list[str]:
    """The lines of a golden file."""
    return (FOLDER / name).read_text(encoding="utf-8").splitlines()


def _without(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without(inner) for name, inner in value.items() if name not in CHANGES_EACH_TIME}
    return value
