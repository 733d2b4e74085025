"""How many streams of answers somebody may have open, so that one caller's do not take the turns of all others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from blobhub_server.rpc.room import Sender
from blobhub_server.rpc.transport_error import TooManyStreams


class OpenStreams:
    """Counts the streams that are open on this server, by caller; of those whom nothing identifies, by address."""

    def __init__(self, *, per_caller: int, per_address: int) -> None:
        self._per_caller = per_caller
        self._per_address = per_address
        self._open: Counter[Sender] = Counter()

    @contextmanager
    def one_more(self, sender: Sender) -> Iterator[None]:
        """Count a stream until the block is left. Raises TooManyStreams."""
        limit, value = ("caller.streams", self._per_caller) if sender.known else ("address.streams", self._per_address)
        if self._open[sender] >= value:
            raise TooManyStreams(limit, value, sender.name)
        self._open[sender] += 1
        try:
            yield
        finally:
            self._open[sender] -= 1
            if not self._open[sender]:
                del self._open[sender]
