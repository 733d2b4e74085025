"""The file of a SQLite database: one server for it by whatever path, and no start or change without all of its parts."""

from __future__ import annotations

import shutil
from pathlib import Path

import acme
import grpc
import pytest
from blobhub_server.blobtypes.conformance import expect_refusal
from blobhub_server.db.sqlite_file import DatabaseInUse, LogMissing
from databases import select
from served import ServerProcess, connected, served

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE


async def test_a_symbolic_link_to_a_database_is_the_same_database(tmp_path: Path) -> None:
    async with served(tmp_path / "data", f"sqlite:///{tmp_path / 'one.db'}"):
        (tmp_path / "link.db").symlink_to(tmp_path / "one.db")
        (tmp_path / "folder").symlink_to(tmp_path, target_is_directory=True)
        for other in (tmp_path / "link.db", tmp_path / "folder" / "one.db"):
            with pytest.raises(DatabaseInUse):
                async with served(tmp_path / "other", f"sqlite:///{other}"):
                    pass


async def test_a_database_that_is_moved_away_under_a_server_is_noticed(tmp_path: Path) -> None:
    path, away = tmp_path / "one.db", tmp_path / "away.db"
    async with (
        served(tmp_path / "data", f"sqlite:///{path}") as server,
        connected(server.address, server.admin_key) as api,
    ):
        await acme.organization(api)
        path.rename(away)
        await expect_refusal(acme.organization(api, "lost"), UNAVAILABLE, "STORAGE_UNAVAILABLE")
        shutil.copy(away, path)
        await expect_refusal(acme.organization(api, "elsewhere"), UNAVAILABLE, "STORAGE_UNAVAILABLE")
        away.rename(path)
        await acme.organization(api, "kept")
    assert await select(f"sqlite:///{path}", "SELECT alias FROM organizations ORDER BY alias") == [("acme",), ("kept",)]


async def test_a_database_whose_log_was_removed_after_a_kill_is_not_opened(tmp_path: Path) -> None:
    path, kept = tmp_path / "one.db", tmp_path / "kept"
    url, log = f"sqlite:///{path}", Path(f"{path}-wal")
    server = ServerProcess(tmp_path / "data", url)
    async with server.running(), connected(server.address, server.admin_key) as api:
        await acme.organization(api)
    log.rename(kept)
    for said in ("Bring it back", r"remove one\.db\.lock"):
        with pytest.raises(LogMissing, match=said):
            async with served(tmp_path / "data", url):
                pass
    assert not log.exists()
    kept.rename(log)
    async with served(tmp_path / "data", url), connected(server.address, None):
        assert await select(url, "SELECT alias FROM organizations") == [("acme",)]
    log.unlink(missing_ok=True)
    async with served(tmp_path / "data", url):
        pass  # it was closed, so its log is in it
