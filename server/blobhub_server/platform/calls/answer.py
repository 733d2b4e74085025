"""Remembered answers: the same request, made again under the same `request_id`, is answered as it was the first time.

All of idempotency is here: whether a request was answered before and is the same, whether its caller may still read the
answer, what happens when it comes twice at the same time, and what is remembered.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

from google.protobuf.message import Message

from blobhub_server.blobtypes.access import Caller, Place
from blobhub_server.blobtypes.call import Call, Response
from blobhub_server.clock import Clock
from blobhub_server.db.engine import Database, Transaction
from blobhub_server.errors import RequestIdReused, Unauthenticated
from blobhub_server.platform.store import request as store
from blobhub_server.platform.store.request import RequestRow

KEY_ID_LENGTH, DIGEST_LENGTH = 16, 48

AnswerRow = Mapping[str, Any]
"""A row that remembers an answer."""


class Readers(Protocol):
    """Decides who may read a place."""

    async def require_reader(self, caller: Caller, place: Place) -> None:
        """Raise PermissionDenied when a place still exists and the caller holds no role on it."""


class Answers:
    """Remembers answers, and gives them again.

    Request bodies are compared by an HMAC and not by a plain hash, because a short secret in a body could be guessed from a
    hash. The HMAC is made with the current one of `keys`, whose id of 16 characters stands before it.
    """

    def __init__(self, db: Database, clock: Clock, readers: Readers, keys: Mapping[str, bytes], current: str) -> None:
        self._db = db
        self._clock = clock
        self._readers = readers
        self._keys = keys
        self._current = current

    async def first_answer(
        self, call: Call[object], make: Callable[[], Awaitable[Response]], read: Callable[[bytes], Response]
    ) -> Response:
        """The remembered answer of a request, as `read` makes it from bytes; for a new request what `make` answers.

        When the same request runs twice at the same time, one of the two fails: on the index of request ids, or because the
        other has changed something. It then gets the other's answer. Raises RequestIdReused, PermissionDenied, and what
        `make` raises.
        """
        before = await self._find_answer(call)
        if before is not None:
            return read(before)
        try:
            answer = await make()
        except Unauthenticated:
            # The key was revoked while the call streamed, so not even the remembered answer is for it.
            raise
        except Exception:
            before = await self._find_answer(call)
            if before is None:
                raise
            return read(before)
        before = await self._find_answer(call) if call.repeatable else None
        return answer if before is None else read(before)

    async def _find_answer(self, call: Call[object]) -> bytes | None:
        """The remembered answer of a request, if its caller may still read the place that it is about.

        A repeated DeleteBlob gets its first answer although the blob is gone. An empty answer reveals nothing, so it needs
        no role; a member who removed themselves can repeat the request.
        """
        found = await self.find(call)
        if found is None:
            return None
        call.recorded = True
        if found.answer and (found.organization_id or found.user_id):
            call.place = Place(organization_id=found.organization_id or "", blob_id=found.blob_id, user_id=found.user_id)
            await self._readers.require_reader(call.caller, call.place)
        return found.answer

    async def find(self, call: Call[object]) -> RequestRow | None:
        """The row of a request's remembered answer. Raises RequestIdReused when its id was used with another body.

        A body whose HMAC was made with a key that is gone cannot be compared, and is taken to be the same.
        """
        request_id = call.request_id
        if not request_id or "\0" in request_id or call.caller.anonymous:
            return None
        async with self._db.read() as tx:
            found = await store.find(tx, call.caller.identity, call.method, request_id)
        if found is None:
            return None
        key_id = found.body_digest[:KEY_ID_LENGTH]
        if key_id in self._keys and not hmac.compare_digest(found.body_digest, self._digest(call, key_id)):
            raise RequestIdReused(request_id)
        return found

    def row(self, call: Call[object], answer: Message) -> AnswerRow | None:
        """The row that remembers an answer; None for a request without an id."""
        if not call.request_id:
            return None
        return {
            "caller": call.caller.identity,
            "method": call.method,
            "request_id": call.request_id,
            "body_digest": self._digest(call, self._current),
            "answer": answer.SerializeToString(),
            "create_time": self._clock(),
            "organization_id": call.place.organization_id or None,
            "blob_id": call.place.blob_id,
            "user_id": call.place.user_id,
        }

    async def remember(self, tx: Transaction, rows: Sequence[AnswerRow]) -> None:
        """Store rows. Raises IntegrityError when a request id has been answered already."""
        if rows:
            await store.insert(tx, rows)

    def _digest(self, call: Call[object], key_id: str) -> str:
        """The HMAC of a request's body, in which the request id is in lower case."""
        request = call.request
        if getattr(request, "request_id", "") != call.request_id:
            request = type(request)()
            request.CopyFrom(call.request)
            request.request_id = call.request_id  # type: ignore[attr-defined]  # the original has one
        body = request.SerializeToString(deterministic=True)
        return key_id + hmac.new(self._keys[key_id], body, hashlib.sha256).hexdigest()[:DIGEST_LENGTH]
