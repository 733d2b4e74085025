"""How executions hear of the ends of their tasks: by messages to their inboxes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from blobhub_server.db.engine import Transaction
from blobhub_server.db.notify import Doorbell
from blobhub_server.workflow.rules.message import Message, MessageKind, require_room
from blobhub_server.workflow.store import execution as execution_store
from blobhub_server.workflow.store import message as message_store


async def require_room_for(tx: Transaction, execution_id: str, body: Mapping[str, Any]) -> None:
    """Raise LimitExceeded where a message is too much for the inbox of an execution, whose row the caller has locked."""
    count, size = await message_store.measure(tx, execution_id)
    require_room(execution_id, count + 1, size + len(json.dumps(body)))


async def tell_end(bell: Doorbell, tx: Transaction, execution_id: str, body: Mapping[str, Any]) -> None:
    """Tell an execution, whose row the caller has locked, that a task of its has ended, unless it has ended itself."""
    execution = await execution_store.count_message(tx, execution_id)
    if execution is not None:
        message = Message(execution_id=execution_id, number=execution.last_message, kind=MessageKind.TASK, body=body)
        await message_store.insert(tx, [message])
        await bell.ring_after_commit(tx, [execution.owner] if execution.owner else [])
