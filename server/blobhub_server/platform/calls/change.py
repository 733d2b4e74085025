"""Changes: a transaction with the change, the answer to remember and the audit entry."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

from google.protobuf.message import Message

from blobhub_server.blobtypes.call import Answer, Call, Response
from blobhub_server.blobtypes.contract import Settlement
from blobhub_server.db.engine import Database, Transaction
from blobhub_server.platform.calls.answer import Answers
from blobhub_server.platform.calls.audit import Audit, audit_row


class Changes:
    """Implements `blobtypes.call.Changes`."""

    def __init__(self, db: Database, answers: Answers, audit: Audit) -> None:
        self._db = db
        self._answers = answers
        self._audit = audit
        self._making: set[asyncio.Task[Any]] = set()

    async def once(self, call: Call[object], make: Callable[[Transaction], Awaitable[Answer]]) -> Answer:
        """Make a change in a transaction of its own, which goes on when the caller goes away."""
        making = asyncio.create_task(self._make(call, make))
        self._making.add(making)
        making.add_done_callback(self._release)
        return await asyncio.shield(making)

    def _release(self, making: asyncio.Task[Any]) -> None:
        """Drop a task that is done. Its exception is read here, because asyncio logs one that nobody reads."""
        self._making.discard(making)
        if not making.cancelled():
            making.exception()

    async def _make(self, call: Call[object], make: Callable[[Transaction], Awaitable[Answer]]) -> Answer:
        async def work(tx: Transaction) -> Answer:
            answer = await make(tx)
            await self.settle(tx, [self.settlement(call, answer)])
            return answer

        return await self._db.transact(work)

    async def first_answer(
        self, call: Call[object], make: Callable[[], Awaitable[Response]], read: Callable[[bytes], Response]
    ) -> Response:
        """Answer from memory, or by making the answer."""
        return await self._answers.first_answer(call, make, read)

    def settlement(self, call: Call[object], answer: Message) -> Settlement:
        """What has to be written beside a change."""
        row = self._answers.row(call, answer)
        return Settlement(
            entry=audit_row(call, answer=answer), request=row, on_commit=partial(setattr, call, "recorded", True)
        )

    async def settle(self, tx: Transaction, settled: Sequence[Settlement]) -> None:
        """Write audit entries and remembered answers, in a transaction, as the last thing in it."""
        await self._answers.remember(tx, [item.request for item in settled if item.request])
        await self._audit.append(tx, [item.entry for item in settled])
        for item in settled:
            tx.after_commit(item.on_commit)
