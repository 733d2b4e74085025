"""Remembered answers: the same request, made again under the same `request_id`, is answered as it was the first time."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from typing import Any

from google.protobuf.message import Message

from blobhub_server.clock import Clock
from blobhub_server.db.engine import Database
from blobhub_server.errors import RequestIdReused
from blobhub_server.platform.rules.access import Caller
from blobhub_server.platform.store import request as store


class Answers:
    """Looks answers up, and makes the rows that remember them.

    What tells one request body from another is an HMAC, not a plain hash: bodies can hold secrets short enough to guess.
    """

    def __init__(self, db: Database, clock: Clock, digest_key: bytes) -> None:
        self._db = db
        self._clock = clock
        self._key = digest_key

    async def before(self, caller: Caller, method: str, request: Message) -> bytes | None:
        """What this caller's request id was answered with. Raises RequestIdReused when the body was another one."""
        request_id = getattr(request, "request_id", "")
        if not request_id or "\0" in request_id or caller.anonymous:
            return None
        async with self._db.read() as tx:
            found = await store.find(tx, caller.identity, method, request_id)
        if found is None:
            return None
        digest, answer = found
        if not hmac.compare_digest(digest, self._digest(request)):
            raise RequestIdReused(request_id)
        return answer

    def row(self, caller: Caller, method: str, request: Message, answer: Message) -> Mapping[str, Any] | None:
        """The row that remembers an answer; None for a request without an id."""
        request_id = getattr(request, "request_id", "")
        if not request_id:
            return None
        return {
            "caller": caller.identity,
            "method": method,
            "request_id": request_id,
            "body_digest": self._digest(request),
            "answer": answer.SerializeToString(),
            "create_time": self._clock(),
        }

    def _digest(self, request: Message) -> str:
        return hmac.new(self._key, request.SerializeToString(deterministic=True), hashlib.sha256).hexdigest()
