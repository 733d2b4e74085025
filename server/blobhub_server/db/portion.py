"""Portions: as many records as one message, or one read, takes.

Whatever reads records whose values may be large asks for their sizes first, and then for as many as fit, so that it never
has more in memory than it sends. A message has at most 4 MiB (`rpc/server.py`) and a record at most 1.5 MiB: its value has
at most 1 MiB as JSON, and its texts are short. So a portion may be followed to the end of the record that fills it.
"""

from __future__ import annotations

from collections.abc import Iterable

MAX_PAGE_BYTES = 2 << 20
"""The bytes from which on a page of a list is full."""
MAX_BATCH_BYTES = 32 << 10
"""The bytes from which on a message of a watch is full.

A stream that nobody reads holds it three times: as lines, as a message, and as gRPC's copy of that.
"""


def count_within(sizes: Iterable[int], max_bytes: int) -> int:
    """How many records of these sizes fill a portion: all up to the one that makes it `max_bytes` or more."""
    count = total = 0
    for size in sizes:
        if total >= max_bytes:
            break
        count, total = count + 1, total + size
    return count
