"""Passes stops down to the executions that steps have started, and their ends up.

Both are done in the transaction of the turn that says so. Parents and children are locked with the executions of the units,
in the order of their ids, or a stop that comes down and an end that goes up would wait for each other.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial

from blobhub_server.blobtypes import json_text
from blobhub_server.blobtypes.contract import Host
from blobhub_server.db.engine import Transaction
from blobhub_server.db.notify import Doorbell
from blobhub_server.turnstile import off_loop
from blobhub_server.workflow.rules.child import Origin, deletion_of, end_of, end_without_room, origin_of
from blobhub_server.workflow.rules.execution import Cause, Execution
from blobhub_server.workflow.rules.message import MAX_BYTES, Message, MessageKind
from blobhub_server.workflow.runtime.embedded.unit import Unit
from blobhub_server.workflow.store import child as child_store
from blobhub_server.workflow.store import execution as execution_store
from blobhub_server.workflow.store import message as message_store
from blobhub_server.workflow.tasks.queueing import cancel_tasks


async def kin_of(tx: Transaction, units: Sequence[Unit]) -> set[str]:
    """The executions that units tell something, by id: children that are to stop, and parents of what ends."""
    children = await execution_store.find_by_causes(tx, _over(units)) if any(unit.over for unit in units) else {}
    return {child.id for child in children.values() if not child.ended} | {
        origin.execution_id for _, origin in _ended(units)
    }


async def tell_kin(tx: Transaction, host: Host, units: Sequence[Unit]) -> None:
    """Stop the children of tries that are over, and tell parents of the ends of what they have started.

    The caller has locked the executions of the units, and `kin_of` them.
    """
    if any(unit.over for unit in units):
        # Also one whose start was committed after its parent's turn was decided.
        started = (await execution_store.find_by_causes(tx, _over(units))).values()
        await stop_children(tx, host.bell, [child for child in started if not child.ended])
    for child, origin in _ended(units):
        size = len(child.result or b"")
        _, waiting = await message_store.measure(tx, origin.execution_id) if size else (0, 0)
        if waiting + size > MAX_BYTES:
            await _tell_parent(tx, host.bell, origin, end_without_room(child, origin))
            continue
        text = (child.result or b"").decode()
        load = partial(json_text.load, text or "null")
        value = await off_loop(size, (child.organization_id, child.actor_id), load)
        await _tell_parent(tx, host.bell, origin, end_of(child, origin, value))


async def stop_children(tx: Transaction, bell: Doorbell, children: Iterable[Execution]) -> None:
    """Ask executions to stop that have not ended."""
    for child in sorted(children, key=lambda child: child.id):
        stopping = await execution_store.stop(tx, child.id)
        if stopping is not None:
            message = Message(execution_id=stopping.id, number=stopping.last_message, kind=MessageKind.STOP)
            await message_store.insert(tx, [message])
            await cancel_tasks(bell, tx, [stopping.id])
            await bell.ring_after_commit(tx, [stopping.owner] if stopping.owner else [])


async def cut_off(tx: Transaction, bell: Doorbell, execution_ids: Sequence[str]) -> None:
    """Have executions that are about to be removed be missed: their children are stopped, and their parents told."""
    await stop_children(tx, bell, await child_store.find_of(tx, execution_ids))
    children = await child_store.find_among(tx, execution_ids)
    there = await execution_store.present(tx, {child.parent_id for child in children if child.parent_id}) if children else ()
    for child in children:
        origin = origin_of(child)
        if origin is not None and origin.execution_id in there:
            await _tell_parent(tx, bell, origin, deletion_of(child, origin))
    # It may take several transactions to remove them, and each begins with this.
    await child_store.forget_parents(tx, [child.id for child in children])


async def _tell_parent(tx: Transaction, bell: Doorbell, origin: Origin, body: dict[str, object]) -> None:
    """Add a message to the inbox of a parent, unless it has ended or is gone."""
    parent = await execution_store.count_message(tx, origin.execution_id)
    if parent is not None:
        message = Message(execution_id=parent.id, number=parent.last_message, kind=MessageKind.CHILD, body=body)
        await message_store.insert(tx, [message])
        await bell.ring_after_commit(tx, [parent.owner] if parent.owner else [])


def _over(units: Sequence[Unit]) -> set[Cause]:
    """The causes of what tries have started that are over with units."""
    return {
        Origin(execution_id=unit.execution.id, step=step, failures=failures).cause
        for unit in units
        for step, failures in unit.over
    }


def _ended(units: Sequence[Unit]) -> list[tuple[Execution, Origin]]:
    """The children that end with units, and what has started them."""
    found = ((unit.execution, origin_of(unit.execution)) for unit in units if unit.execution.ended)
    return [(child, origin) for child, origin in found if origin is not None]
