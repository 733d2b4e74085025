"""Remembered answers: the same request, made again under the same `request_id`, is answered as it was the first time.

All of idempotency is here: whether a request was answered before, whether it is the same one, whether its caller may still
be told, what becomes of two that come at once, and what is remembered.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

from google.protobuf.message import Message

from blobhub_server.blobtypes.access import Caller, Place
from blobhub_server.blobtypes.call import Call, Made
from blobhub_server.clock import Clock
from blobhub_server.db.engine import Database, Transaction
from blobhub_server.errors import RequestIdReused, Unauthenticated
from blobhub_server.platform.store import request as store
from blobhub_server.platform.store.request import RequestRow

KEY_ID_LENGTH, DIGEST_LENGTH = 16, 48

Row = Mapping[str, Any]
"""A row that remembers an answer."""


class Readers(Protocol):
    """Knows who may read where."""

    async def require_reader(self, caller: Caller, place: Place) -> None:
        """Raise PermissionDenied for a caller who holds no role on a place that is still there."""


class Answers:
    """Remembers answers, and gives them again.

    What tells one request body from another is an HMAC, not a plain hash: bodies can hold secrets short enough to guess. It
    is made with the current one of `keys`, and says which that was; `keys` are by id, 16 characters.
    """

    def __init__(self, db: Database, clock: Clock, readers: Readers, keys: Mapping[str, bytes], current: str) -> None:
        self._db = db
        self._clock = clock
        self._readers = readers
        self._keys = keys
        self._current = current

    async def first_answer(
        self, call: Call[object], make: Callable[[], Awaitable[Made]], read: Callable[[bytes], Made]
    ) -> Made:
        """The answer that is remembered for a request, as `read` makes it from bytes; else what `make` answers.

        Of the same request that is sent twice at once, one fails: on the index of request ids, or on what the other has
        changed, be it only that a reference leads elsewhere now. It gets the other's answer. Raises RequestIdReused,
        PermissionDenied, and what `make` raises.
        """
        before = await self._before(call)
        if before is not None:
            return read(before)
        try:
            answer = await make()
        except Unauthenticated:
            # The key has been revoked while the call streamed: it is told nothing any more.
            raise
        except Exception:
            before = await self._before(call)
            if before is None:
                raise
            return read(before)
        before = await self._before(call) if call.repeatable else None
        return answer if before is None else read(before)

    async def _before(self, call: Call[object]) -> bytes | None:
        """What is remembered for a request, when its caller may still read where that came from.

        What is gone is told to whom it was told before, as the answer to a deletion has to be; and an answer without
        anything in it, as to the removal of oneself, tells nothing.
        """
        found = await self.find(call)
        if found is None:
            return None
        call.recorded = True
        if found.answer and (found.org_id or found.user_id):
            call.place = Place(found.org_id or "", found.blob_id, found.user_id)
            await self._readers.require_reader(call.caller, call.place)
        return found.answer

    async def find(self, call: Call[object]) -> RequestRow | None:
        """What is remembered of a request. Raises RequestIdReused when its id was used with another body.

        Bodies that were told by a key which is gone cannot be told any more, and are taken to be the same.
        """
        request_id = getattr(call.request, "request_id", "")
        if not request_id or "\0" in request_id or call.caller.anonymous:
            return None
        async with self._db.read() as tx:
            found = await store.find(tx, call.caller.identity, call.method, request_id)
        if found is None:
            return None
        key_id = found.body_digest[:KEY_ID_LENGTH]
        if key_id in self._keys and not hmac.compare_digest(found.body_digest, self._digest(call.request, key_id)):
            raise RequestIdReused(request_id)
        return found

    def row(self, call: Call[object], answer: Message) -> Row | None:
        """The row that remembers an answer; None for a request without an id."""
        request_id = getattr(call.request, "request_id", "")
        if not request_id:
            return None
        return {
            "caller": call.caller.identity,
            "method": call.method,
            "request_id": request_id,
            "body_digest": self._digest(call.request, self._current),
            "answer": answer.SerializeToString(),
            "create_time": self._clock(),
            "org_id": call.place.org_id or None,
            "blob_id": call.place.blob_id,
            "user_id": call.place.user_id,
        }

    async def remember(self, tx: Transaction, rows: Sequence[Row]) -> None:
        """Store rows. Raises IntegrityError when a request id has been answered already."""
        if rows:
            await store.insert(tx, rows)

    def _digest(self, request: Message, key_id: str) -> str:
        body = request.SerializeToString(deterministic=True)
        return key_id + hmac.new(self._keys[key_id], body, hashlib.sha256).hexdigest()[:DIGEST_LENGTH]
