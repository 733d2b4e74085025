"""Remembered answers: the same request, made again under the same `request_id`, is answered as it was the first time."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message

from blobhub_server.blobtypes.contract import Located
from blobhub_server.clock import Clock
from blobhub_server.db.engine import Database
from blobhub_server.errors import RequestIdReused
from blobhub_server.platform.rules.access import Caller
from blobhub_server.platform.store import request as store
from blobhub_server.platform.store.request import RequestRow

KEY_ID_LENGTH, DIGEST_LENGTH = 16, 48


@dataclass(frozen=True, slots=True)
class Remembered:
    """An answer, and where the roles of the call that got it were held; None for calls that named no resource."""

    answer: bytes
    place: Located | None


class Answers:
    """Looks answers up, and makes the rows that remember them.

    What tells one request body from another is an HMAC, not a plain hash: bodies can hold secrets short enough to guess. It
    is made with the current one of `keys`, and says which that was; `keys` are by id, 16 characters.
    """

    def __init__(self, db: Database, clock: Clock, keys: Mapping[str, bytes], current: str) -> None:
        self._db = db
        self._clock = clock
        self._keys = keys
        self._current = current

    async def before(self, caller: Caller, method: str, request: Message) -> Remembered | None:
        """What this caller's request id was answered with. Raises RequestIdReused when the body was another one.

        Bodies that were told by a key which is gone cannot be told any more, and are taken to be the same.
        """
        request_id = getattr(request, "request_id", "")
        if not request_id or "\0" in request_id or caller.anonymous:
            return None
        async with self._db.read() as tx:
            found = await store.find(tx, caller.identity, method, request_id)
        if found is None:
            return None
        key_id = found.body_digest[:KEY_ID_LENGTH]
        if key_id in self._keys and not hmac.compare_digest(found.body_digest, self._digest(request, key_id)):
            raise RequestIdReused(request_id)
        return Remembered(found.answer, _place(found))

    def row(
        self, caller: Caller, located: Located | None, method: str, request: Message, answer: Message
    ) -> Mapping[str, Any] | None:
        """The row that remembers an answer; None for a request without an id."""
        request_id = getattr(request, "request_id", "")
        if not request_id:
            return None
        return {
            "caller": caller.identity,
            "method": method,
            "request_id": request_id,
            "body_digest": self._digest(request, self._current),
            "answer": answer.SerializeToString(),
            "create_time": self._clock(),
            "org_id": located.org_id or None if located else None,
            "blob_id": located.blob_id if located else None,
            "user_id": located.user_id if located else None,
        }

    def _digest(self, request: Message, key_id: str) -> str:
        body = request.SerializeToString(deterministic=True)
        return key_id + hmac.new(self._keys[key_id], body, hashlib.sha256).hexdigest()[:DIGEST_LENGTH]


def _place(row: RequestRow) -> Located | None:
    if row.org_id is None and row.user_id is None:
        return None
    return Located(row.org_id or "", row.blob_id, False, None, row.user_id)
