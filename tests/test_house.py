"""How the tree is written: what a reader may rely on wherever they look."""

from __future__ import annotations

from tree import modules, records_by_position

NAMED_FROM_FIELDS = 3
"""The number of fields from which nobody can be expected to know their order."""


def test_records_are_built_by_keyword() -> None:
    found = {
        module.place(call) for module in modules().values() for call, _ in records_by_position(module, NAMED_FROM_FIELDS)
    }
    assert found == set(), "records built by position"
