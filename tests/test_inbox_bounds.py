"""Signals that wait in an execution are bounded in number and bytes; stops are taken all the same."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
from blobhub_server.db.engine import Transaction
from blobhub_server.errors import LimitExceeded
from blobhub_server.workflow.components.registry import ComponentRegistry
from blobhub_server.workflow.rules import message
from blobhub_server.workflow.rules.message import MAX_BYTES, MAX_SIGNALS, require_room
from calling import ask
from databases import select
from interpreting import REGISTRY, WaitsForSignal, signalled_document
from several_servers import hand_over, inbox, together
from waiting import until

LARGE = "x" * 900_000
FEW = 100
"""The bound on the number of messages here."""


@pytest.mark.parametrize(("value", "name"), [(1, "execution.signals"), (LARGE, "execution.signal_bytes")])
async def test_signals_beyond_the_bounds_of_an_inbox_are_refused_by_name_and_a_stop_is_taken(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch, value: Any, name: str
) -> None:
    monkeypatch.setattr(message, "MAX_SIGNALS", FEW)
    monkeypatch.setattr(ComponentRegistry, "load", lambda: ComponentRegistry([*REGISTRY, WaitsForSignal()]))
    async with together(tmp_path, database_url) as found:
        opened, api = found[0]
        session = await api.session(signalled_document(patient=True))
        started = await ask(api, "StartExecution", session=session, spec={"definition": "workflow"})
        execution_id = started.execution.id
        await hand_over(opened, execution_id)  # to a server that takes nothing in
        box, db = inbox(opened), opened.host.db

        async def fill(tx: Transaction) -> None:
            for _ in range(FEW):
                await box.signal(tx, execution_id, name="other", key="mine", value=value)

        async def fill_and_one_more(tx: Transaction) -> None:
            with pytest.raises(LimitExceeded) as refused:
                await fill(tx)
                await box.signal(tx, execution_id, name="other", key="mine", value=value)
            assert refused.value.code == "RESOURCE_EXHAUSTED"
            assert name in str(refused.value.metadata)

        await db.transact(fill_and_one_more)  # what was refused is undone, what came before it is kept
        waiting = await select(database_url, "SELECT * FROM messages")
        assert len(waiting) == (FEW if value == 1 else MAX_BYTES // len(LARGE))
        row = await select(database_url, "SELECT last_message FROM executions")
        assert [*row[0]] == [len(waiting)], "no message is counted that is not there"
        await ask(api, "StopExecution", execution=execution_id)
        await until(partial(_has_messages, database_url, len(waiting) + 1))


async def _has_messages(url: str, count: int) -> bool:
    return len(await select(url, "SELECT * FROM messages")) == count


def test_an_execution_has_room_for_signals_up_to_its_bounds() -> None:
    require_room("e", MAX_SIGNALS, MAX_BYTES)
    for count, size in ((MAX_SIGNALS + 1, 0), (0, MAX_BYTES + 1)):
        with pytest.raises(LimitExceeded):
            require_room("e", count, size)
