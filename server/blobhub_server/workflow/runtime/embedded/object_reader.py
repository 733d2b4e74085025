"""Reads session objects for turns: small ones as they are, large ones once for each etag."""

from __future__ import annotations

import json
from collections.abc import Collection
from functools import partial
from typing import Any

from blobhub_server.cache import Cache
from blobhub_server.db.engine import Transaction
from blobhub_server.turnstile import off_loop
from blobhub_server.workflow.rules.session_object import Reading
from blobhub_server.workflow.store import session_object as object_store

_MAX_LARGE, _MAX_LARGE_BYTES = 1_000, 16 << 20
"""How many large values are cached, and of how many bytes of JSON together."""


class ObjectReader:
    """Reads session objects of all executions of a server, and caches large values by their etags.

    Each version of an object has an etag of its own. Values are never changed in place, so whoever reads one may share it.
    """

    def __init__(self) -> None:
        self._large: Cache[tuple[Any]] = Cache(max_count=_MAX_LARGE, max_bytes=_MAX_LARGE_BYTES)

    async def read(self, tx: Transaction, session_id: str, aliases: Collection[str]) -> Reading:
        """The named objects as a transaction sees them."""
        if not aliases:
            return Reading()
        found = await object_store.read_small(tx, session_id, aliases)
        values, etags = dict[str, Any](), dict[str, str]()
        for alias, etag, text in found:
            known = (json.loads(text),) if text is not None else self._large.get(etag)
            if known is not None:
                values[alias], etags[alias] = known[0], etag
        missing = [alias for alias, _, _ in found if alias not in values]
        for alias, etag, text in await object_store.read(tx, session_id, missing) if missing else ():
            values[alias], etags[alias] = await off_loop(len(text), ("", "session objects"), partial(json.loads, text)), etag
            self._large.put(etag, (values[alias],), len(text))
        return Reading(values=values, etags=etags)
