"""Upkeep beside the calls: whatever fails is done again, and trouble with the storage is told as such."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import cast

import pytest
import structlog
from blobhub_server.db import upkeep
from blobhub_server.db.engine import Database
from blobhub_server.db.trouble import Trouble
from blobhub_server.errors import StorageUnavailable
from waiting import until


async def test_a_pass_that_fails_is_followed_by_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep, "PASS_SECONDS", 0)
    trouble, passes = Trouble(), list[Exception | None]()

    async def take_pass() -> None:
        errors: list[Exception | None] = [StorageUnavailable(), ValueError("a mistake"), None]
        passes.append(errors[len(passes) % 3])
        if passes[-1] is not None:
            raise passes[-1]

    with structlog.testing.capture_logs() as logged:
        task = asyncio.create_task(
            upkeep.take_passes(cast(Database, SimpleNamespace(trouble=trouble)), take_pass, "nothing_removed")
        )
        await until(lambda: len(passes) > 3)
        task.cancel()
    assert [line["event"] for line in logged][:2] == ["storage_unusable", "nothing_removed"]
    assert logged[1]["work"] == "take_pass"


async def test_rows_are_removed_in_rounds_until_one_finds_fewer() -> None:
    left, rounds = [250], list[int]()

    async def transact(work: object) -> int:
        return await work(None)  # type: ignore[operator]

    async def remove_some(tx: object) -> int:
        rounds.append(min(100, left[0]))
        left[0] -= rounds[-1]
        return rounds[-1]

    await upkeep.remove_in_rounds(cast(Database, SimpleNamespace(transact=transact)), remove_some, 100)
    assert rounds == [100, 100, 50]
