"""How large the values of an execution are, and how much its log may hold of them.

The log is counted as it is folded, so it is counted the same on every server and after every restart.
"""

from __future__ import annotations

import json
from typing import Any

from blobhub_server.workflow.interpreter.records import Record

MAX_LOG_BYTES = 64 << 20
"""How large an execution's log may become; an execution that goes on beyond fails with `LOG_LIMIT`."""
EVENT_BYTES = 500
"""What an event counts for beside its values: about what the database keeps of it."""
BYTES_A_COMPONENT = 2 << 10
"""How many bytes of values count as one more component of a turn, so that a turn, and what it writes, stay small."""


def logged_bytes(record: Record) -> int:
    """How many bytes a record adds to the log."""
    public, private = record.public, record.private
    values = [public[name] for name in ("value", "printed", "result") if name in public]
    for name in ("outputs", "session", "input_data"):
        if name in private:
            values += private[name].values()
    return EVENT_BYTES + sum(map(_value_bytes, values))


def _value_bytes(value: Any) -> int:
    """About how long a value is as JSON."""
    if isinstance(value, str):
        return len(value)
    return len(json.dumps(value)) if isinstance(value, dict | list) else 8
