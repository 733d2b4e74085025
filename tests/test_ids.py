"""Ids: UUIDv7, ascending."""

from __future__ import annotations

import uuid

from blobhub_server.ids import Uuid7, is_uuid


def test_ids_are_version_7_and_ascend_even_when_the_clock_goes_back():
    clock = iter([1000, 1000, 999, 5, 1001] + [1001] * 10_000)
    ids = Uuid7(milliseconds=lambda: next(clock))
    made = [ids() for _ in range(10_005)]
    assert made == sorted(set(made))
    for text in made[:5]:
        assert is_uuid(text)
        assert (uuid.UUID(text).version, uuid.UUID(text).variant) == (7, uuid.RFC_4122)
    assert uuid.UUID(made[0]).int >> 80 == 1000
