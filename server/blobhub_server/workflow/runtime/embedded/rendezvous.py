"""Brings steps that begin to wait for a signal together with those that are kept for their blob.

Whoever signals by key looks for waits, whoever waits looks for kept signals. Were both to look at once, neither would find
the other. So each locks the blob's row of `signal_sizes` before it looks and writes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import groupby

from blobhub_server.blobtypes import json_text
from blobhub_server.blobtypes.contract import Host
from blobhub_server.db.engine import Transaction
from blobhub_server.turnstile import off_loop
from blobhub_server.workflow.rules.execution import Execution
from blobhub_server.workflow.rules.message import Message, MessageKind
from blobhub_server.workflow.rules.signal import KeptSignal, SignalWait
from blobhub_server.workflow.runtime.embedded.unit import Unit
from blobhub_server.workflow.store import execution as execution_store
from blobhub_server.workflow.store import message as message_store
from blobhub_server.workflow.store import signal as signal_store
from blobhub_server.workflow.store import wait as wait_store


async def bring_together(tx: Transaction, host: Host, units: Sequence[Unit]) -> None:
    """Write which steps of units begin and end to wait; send what is kept to those that begin, in the order of the units.

    The caller has locked the executions of the units.
    """
    ended = [(unit.execution.id, step) for unit in units for step in unit.waits.ended]
    if ended:
        await wait_store.delete(tx, ended)
    begun = [wait for unit in units if unit.waits.begun for wait in _waits(unit, host.clock())]
    if not begun:
        return
    owners = {unit.execution.id: unit.execution for unit in units}
    waiting = list[SignalWait]()
    # By blob, in the order of their ids, as wherever several of these rows are locked.
    for blob_id, waits in groupby(sorted(begun, key=lambda wait: wait.blob_id), lambda wait: wait.blob_id):
        left = (await signal_store.lock(tx, blob_id)).signals
        for wait in waits:
            found = await signal_store.take(tx, blob_id, wait.name, wait.key) if left else None
            if found is None:
                waiting.append(wait)
                continue
            left -= 1
            await _send(tx, host, owners[wait.execution_id], found)
    await wait_store.insert(tx, waiting)


def _waits(unit: Unit, now: datetime) -> Iterator[SignalWait]:
    for number, step in sorted(unit.waits.begun.items()):
        assert step.awaits is not None, "it waits"
        yield SignalWait(
            execution_id=unit.execution.id,
            step=number,
            blob_id=unit.execution.blob_id,
            component_id=step.component_id,
            name=step.awaits.details["name"],
            key=step.awaits.details["key"],
            create_time=now,
            wake_time=None if step.until is None else datetime.fromtimestamp(step.until, UTC),
        )


async def _send(tx: Transaction, host: Host, to: Execution, signal: KeptSignal) -> None:
    """Put a signal into the inbox of an execution. The next turn takes it in before everything else."""
    value = await off_loop(signal.size, (to.organization_id, to.actor_id), lambda: json_text.load(signal.value))
    counted = await execution_store.count_message(tx, to.id)
    assert counted is not None, "it is locked, and has a step that waits"
    body = {"name": signal.name, "key": signal.key, "value": value, "size": signal.size}
    await message_store.insert(
        tx, [Message(execution_id=to.id, number=counted.last_message, kind=MessageKind.SIGNAL, body=body)]
    )
    if to.owner is not None:
        await host.bell.ring_after_commit(tx, [to.owner])
