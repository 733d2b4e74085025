"""Signals by key: to the execution of a blob that has waited longest for one; where none waits, kept until one does."""

from __future__ import annotations

from typing import Any

from blobhub_server.blobtypes.contract import BlobView, Host
from blobhub_server.db.engine import Transaction
from blobhub_server.errors import PermissionDenied
from blobhub_server.workflow.rules import limit
from blobhub_server.workflow.rules.signal import KeptSignal
from blobhub_server.workflow.runtime.inbox import Inbox
from blobhub_server.workflow.store import signal as store
from blobhub_server.workflow.store import wait as wait_store


class SignalCrossed(Exception):
    """A wait began, or ended, while the signal was on its way to it: it is to be sent anew, in a new transaction."""


class Signals:
    """Sends signals to whoever waits for them."""

    def __init__(self, host: Host, inbox: Inbox) -> None:
        self._host = host
        self._inbox = inbox

    async def send(self, tx: Transaction, blob: BlobView, *, name: str, key: str, value: Any, text: str) -> str:
        """Send a signal, whose `text` is the value as JSON; return the id of the execution that gets it, "" where none does.

        Raises SignalCrossed, PermissionDenied where the blob is gone, and LimitExceeded; nothing is to be committed then.
        """
        if not await self._host.contents.pin(tx, blob.id):  # Nobody deletes it before this is committed.
            raise PermissionDenied
        # An execution's row is locked before that of the blob's signals, as in the journal, and only one of the two here.
        execution_id = await wait_store.oldest(tx, blob.id, name, key)
        if execution_id is None:
            await self._keep(tx, blob, name, key, text)
            return ""
        if not await self._inbox.signal_waiting(tx, execution_id, name=name, key=key, value=value):
            raise SignalCrossed
        return execution_id

    async def _keep(self, tx: Transaction, blob: BlobView, name: str, key: str, text: str) -> None:
        held = await store.lock(tx, blob.id)
        # Whoever began to wait before the lock was there has committed now.
        if await wait_store.oldest(tx, blob.id, name, key) is not None:
            raise SignalCrossed
        size = len(text.encode())
        where = {"organization_id": blob.organization_id, "blob_id": blob.id}
        await self._host.limits.require(tx, limit.SIGNALS, **where, held=held.signals + 1)
        await self._host.limits.require(tx, limit.SIGNAL_BYTES, **where, held=held.signal_bytes + size)
        await store.keep(
            tx,
            KeptSignal(
                id=self._host.ids(),
                blob_id=blob.id,
                name=name,
                key=key,
                value=text,
                size=size,
                create_time=self._host.clock(),
            ),
        )
