"""Turns read the session objects that their graphs read: large ones once for each version, and none that are only set."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import flows
import pytest
from blobhub_server.db.engine import Transaction
from blobhub_server.workflow.store import session_object as object_store
from calling import ask
from counters import session_value
from served import Api

LARGE = 2_000
"""How many numbers make a list of more than 8 KiB."""


def reading_and_setting() -> str:
    """An expression reads the first item of `list`; its result is set to `last`."""
    return flows.document(
        [
            flows.component("start", "flow.start"),
            session_value("list"),
            session_value("last"),
            flows.component("first", "logic.expression", expression="n[0]"),
            flows.component("end", "flow.end"),
        ],
        [
            flows.control("start", "first"),
            flows.data("list", "value", "first", "n"),
            flows.data("first", "result", "last", "value"),
            flows.control("first", "end", "success"),
            flows.data("first", "result", "end", "value"),
        ],
    )


async def test_a_large_object_is_read_once_for_each_version_and_one_that_is_only_set_never(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = await api.session(reading_and_setting())
    small: list[str] = []
    large: list[str] = []
    read_small, read = object_store.read_small, object_store.read

    async def note_small(tx: Transaction, session_id: str, aliases: Iterable[str]) -> Any:
        small.extend(aliases)
        return await read_small(tx, session_id, aliases)

    async def note_large(tx: Transaction, session_id: str, aliases: Iterable[str]) -> Any:
        large.extend(aliases)
        return await read(tx, session_id, aliases)

    monkeypatch.setattr(object_store, "read_small", note_small)
    monkeypatch.setattr(object_store, "read", note_large)
    for version in (1, 2):
        text = str([version * 100_000] * LARGE)
        await ask(api, "PutSessionObject", session=session, alias="list", value_json=text)
        for _ in range(3):
            ended = await ask(api, "RunExecution", session=session, spec={"definition": "workflow"})
            assert ended.execution.result.number_value == version * 100_000
        assert large == ["list"] * version
    assert set(small) == {"list"}
    found = await ask(api, "GetSessionObject", session=session, alias="last")
    assert found.session_object.value.number_value == 200_000
