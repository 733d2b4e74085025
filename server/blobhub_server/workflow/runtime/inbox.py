"""The inboxes of running executions. Any server may add a message.

A message is a row, written in the sender's transaction and counted on the execution's row. The commit rings the server that
owns the execution, which reads the message, and removes it in the transaction that journals what it led to. So a message is
taken in exactly once, also when the owner is killed. The journal compares the count under the lock of the execution's row,
so no turn is journaled that ignores a committed message.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any

from blobhub_server.blobtypes.contract import Host
from blobhub_server.db.engine import Transaction
from blobhub_server.errors import PermissionDenied
from blobhub_server.workflow.log.session_events import SessionEvents
from blobhub_server.workflow.rules.execution import Execution, require_signallable, require_stoppable, takes_signals
from blobhub_server.workflow.rules.message import Message, MessageKind, require_room
from blobhub_server.workflow.rules.session import CLOSED, CLOSING, OPEN, Session
from blobhub_server.workflow.store import execution as execution_store
from blobhub_server.workflow.store import message as message_store
from blobhub_server.workflow.store import session as session_store
from blobhub_server.workflow.store import wait as wait_store
from blobhub_server.workflow.tasks.queueing import cancel_tasks


class Inbox:
    """Sends messages to executions."""

    def __init__(self, host: Host, events: SessionEvents) -> None:
        self._host = host
        self._events = events

    async def stop(self, tx: Transaction, execution_id: str) -> Execution:
        """Ask an execution to stop; return it as it is then. A stopping or stopped execution stays as it is.

        Once this is committed the execution ends as stopped. Raises ExecutionEnded, PermissionDenied.
        """
        stopping = await execution_store.stop(tx, execution_id)
        if stopping is not None:
            await self._send(tx, [stopping], MessageKind.STOP)
            await cancel_tasks(self._host.bell, tx, [execution_id])
            return stopping
        execution = await execution_store.get(tx, execution_id)
        if execution is None:
            raise PermissionDenied
        require_stoppable(execution)
        return execution

    async def signal(self, tx: Transaction, execution_id: str, *, name: str, key: str, value: Any) -> None:
        """Send a signal to an execution. The first step that waits for it goes on; while none does, the execution keeps it.

        Raises ExecutionEnded, PermissionDenied, and LimitExceeded where too many signals wait in it; nothing is written.
        """
        before = await self._locked(tx, execution_id)
        if before is None:
            raise PermissionDenied
        require_signallable(before)
        await wait_store.claim(tx, execution_id, name, key)
        await self._signal(tx, before, {"name": name, "key": key, "value": value})

    async def signal_waiting(self, tx: Transaction, execution_id: str, *, name: str, key: str, value: Any) -> bool:
        """Send a signal to an execution if a step of it waits for that; return whether one does.

        Raises LimitExceeded, likewise.
        """
        before = await self._locked(tx, execution_id)
        if before is None or not takes_signals(before) or await wait_store.claim(tx, execution_id, name, key) is None:
            return False
        await self._signal(tx, before, {"name": name, "key": key, "value": value})
        return True

    async def _locked(self, tx: Transaction, execution_id: str) -> Execution | None:
        """An execution that is there: until this is committed, nobody adds a message to it, and no turn is journaled."""
        await execution_store.lock(tx, [execution_id])
        return await execution_store.get(tx, execution_id)

    async def _signal(self, tx: Transaction, to: Execution, body: Mapping[str, Any]) -> None:
        """Add a signal to the inbox of an execution that is locked and takes signals. Raises LimitExceeded."""
        size = len(json.dumps(body))
        count, waiting = await message_store.measure(tx, to.id)
        require_room(to.id, to.signals + count + 1, to.signal_bytes + waiting + size)
        counted = await execution_store.count_message(tx, to.id)
        assert counted is not None, "it is locked, and has not ended"
        await self._send(tx, [counted], MessageKind.SIGNAL, {**body, "size": size})

    async def close(self, tx: Transaction, session_id: str) -> Session:
        """Close a session to new executions and stop those that run; return it as it is then.

        It is closed at once when nothing runs in it, else by the journal, together with the end of the last execution.
        Raises PermissionDenied.
        """
        session = await session_store.get(tx, session_id, lock=True)
        if session is None:
            raise PermissionDenied
        if session.state == OPEN:
            await session_store.set_state(tx, [session_id], CLOSING, self._host.clock())
            await self._events.append_closing(tx, session_id)
            while stopping := await execution_store.stop_some(tx, session_id):
                await self._send(tx, stopping, MessageKind.STOP)
                await cancel_tasks(self._host.bell, tx, [execution.id for execution in stopping])
                await asyncio.sleep(0)  # however many run, others have their turn
        if session.state != CLOSED and not await execution_store.find_busy(tx, {session_id}):
            await session_store.set_state(tx, [session_id], CLOSED, self._host.clock())
            await self._events.append_closed(tx, session_id)
        now = await session_store.get(tx, session_id)
        if now is None:  # Its blob was deleted meanwhile: the session itself is locked.
            raise PermissionDenied
        return now

    async def _send(
        self, tx: Transaction, to: Sequence[Execution], kind: MessageKind, body: Mapping[str, Any] | None = None
    ) -> None:
        """Store a message to executions on which it has been counted, and ring those who own them."""
        if not to:
            return
        await message_store.insert(
            tx, [Message(execution_id=item.id, number=item.last_message, kind=kind, body=body or {}) for item in to]
        )
        await self._host.bell.ring_after_commit(tx, sorted({item.owner for item in to if item.owner}))
