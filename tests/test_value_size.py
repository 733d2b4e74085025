"""How large a value is, as the log and the state of an execution count it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest
from blobhub_server.blobtypes.json_text import MAX_BYTES, MAX_VALUE_ITEMS
from blobhub_server.workflow.interpreter import size
from blobhub_server.workflow.interpreter.records import Record
from blobhub_server.workflow.interpreter.size import EVENT_BYTES, MAX_VALUE_BYTES, measure
from exact import values
from hypothesis import given


def sizes(value: Any) -> tuple[int, Mapping[str, int]]:
    """What a record with an output counts for."""
    logged, _, kept = measure(Record(type="processor.exited", at=0.0, step=1, private={"outputs": {"result": value}}))
    return logged - EVENT_BYTES, kept


@given(value=values)
def test_a_value_counts_for_about_its_text_and_the_same_when_it_is_read_again(value: Any) -> None:
    text = json.dumps(value)
    logged, kept = sizes(value)
    assert len(text) / 6 - 8 <= logged <= 7 * len(text) + 8
    assert logged <= kept["result"] * 6
    assert sizes(json.loads(text)) == (logged, kept)


def test_a_value_as_large_as_there_may_be_counts_for_no_more_than_its_bound() -> None:
    for value in ([[]] * MAX_VALUE_ITEMS, ["x" * (MAX_BYTES // MAX_VALUE_ITEMS - 3)] * MAX_VALUE_ITEMS):
        assert sizes(value)[1]["result"] <= MAX_VALUE_BYTES


def test_no_number_is_written_to_be_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The digits of a float take a microsecond, on the event loop."""

    def write_text(value: Any) -> str:
        assert type(value) is str
        return json.dumps(value)

    monkeypatch.setattr(size, "json", SimpleNamespace(dumps=write_text))
    assert sizes([1e15 + number / 8 for number in range(1_000)])[0] > 17_000
    assert sizes({"a": [[1, 2.5], {"b": None}]})[0] > 10
