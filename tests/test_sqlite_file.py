"""The file of a SQLite database: one server for it by whatever path, and no start or change without all of its parts."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path

import acme
import grpc
import pytest
import sqlalchemy as sa
from blobhub_server.blobtypes.conformance import expect_refusal
from blobhub_server.db.engine import CoreResult, Database
from blobhub_server.db.opening import open_database
from blobhub_server.db.sqlite import SqliteTransaction
from blobhub_server.db.sqlite_file import DatabaseInUse, LogMissing, SeveralNames, SqliteFile
from blobhub_server.errors import StorageUnavailable
from calling import ask
from commands import environment, refused, run
from databases import select
from forked import COMMAND
from served import ServerProcess, connected, served
from waiting import until, within_deadline

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE


async def test_a_symbolic_link_to_a_database_is_the_same_database(tmp_path: Path) -> None:
    async with served(tmp_path / "data", f"sqlite:///{tmp_path / 'one.db'}"):
        (tmp_path / "link.db").symlink_to(tmp_path / "one.db")
        (tmp_path / "folder").symlink_to(tmp_path, target_is_directory=True)
        for other in (tmp_path / "link.db", tmp_path / "folder" / "one.db"):
            with pytest.raises(DatabaseInUse):
                async with served(tmp_path / "other", f"sqlite:///{other}"):
                    pass


async def test_a_hard_link_to_a_database_is_told_since_its_log_has_another_name(tmp_path: Path) -> None:
    async with served(tmp_path / "data", f"sqlite:///{tmp_path / 'one.db'}"):
        (tmp_path / "link.db").hardlink_to(tmp_path / "one.db")
        await refused_start(tmp_path, tmp_path / "link.db")
    with pytest.raises(SeveralNames, match="remove the others"):
        async with served(tmp_path / "other", f"sqlite:///{tmp_path / 'link.db'}"):
            pass
    (tmp_path / "link.db").unlink()
    async with served(tmp_path / "data", f"sqlite:///{tmp_path / 'one.db'}"):
        pass


async def test_a_database_whose_lock_file_was_removed_has_one_server(tmp_path: Path) -> None:
    async with served(tmp_path / "data", f"sqlite:///{tmp_path / 'one.db'}"):
        (tmp_path / "one.db.lock").unlink()
        await refused_start(tmp_path, tmp_path / "one.db")


async def test_a_log_that_is_removed_under_a_server_is_noticed_and_nothing_in_it_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "one.db"
    url, log = f"sqlite:///{path}", Path(f"{path}-wal")
    server = ServerProcess(tmp_path / "data", url)
    for number, loss in enumerate((log.unlink, lambda: log.rename(tmp_path / "away"), lambda: replace(log))):
        async with server.running(), connected(server.address, server.admin_key) as api:
            await acme.organization(api, f"kept{number}")
            loss()
            await expect_refusal(acme.organization(api, "lost"), UNAVAILABLE, "STORAGE_UNAVAILABLE")
            await ask(api, "GetOrganization", organization=f"kept{number}")
    async with served(tmp_path / "data", url) as last, connected(last.address, None):
        found = await select(url, "SELECT alias FROM organizations ORDER BY alias")
        assert found == [("kept0",), ("kept1",), ("kept2",)]


async def test_a_log_that_is_brought_back_under_a_server_is_written_to_again(tmp_path: Path) -> None:
    path = tmp_path / "one.db"
    url, log = f"sqlite:///{path}", Path(f"{path}-wal")
    server = ServerProcess(tmp_path / "data", url)
    async with server.running(), connected(server.address, server.admin_key) as api:
        log.rename(tmp_path / "away")
        await expect_refusal(acme.organization(api, "lost"), UNAVAILABLE, "STORAGE_UNAVAILABLE")
        (tmp_path / "away").rename(log)

        async def is_kept() -> bool:
            """What the server did when it had begun may have met the storage in trouble: then a call comes again."""
            with suppress(grpc.aio.AioRpcError):
                await acme.organization(api, "kept")
                return True
            return False

        await until(is_kept)
    log.rename(tmp_path / "away")
    with pytest.raises(LogMissing):
        async with served(tmp_path / "data", url):
            pass
    (tmp_path / "away").rename(log)
    async with served(tmp_path / "data", url):
        assert await select(url, "SELECT alias FROM organizations") == [("kept",)]


async def test_a_log_that_is_brought_back_while_a_refused_change_saves_it_is_missed_when_it_is_gone_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    db, log = await open_database(f"sqlite:///{tmp_path / 'one.db'}"), tmp_path / "one.db-wal"
    saving, go_on = asyncio.Event(), asyncio.Event()
    execute_beside = SqliteTransaction.execute_beside

    async def wait_before_saving(tx: SqliteTransaction, statement: sa.Executable) -> CoreResult:
        found = await execute_beside(tx, statement)
        saving.set()
        await go_on.wait()
        return found

    await change(db, "CREATE TABLE things (name TEXT)")
    monkeypatch.setattr(SqliteTransaction, "execute_beside", wait_before_saving)
    log.rename(tmp_path / "away")
    refused_change = asyncio.create_task(change(db, "INSERT INTO things VALUES ('lost')"))
    await within_deadline(saving.wait())
    (tmp_path / "away").rename(log)
    kept = asyncio.create_task(change(db, "INSERT INTO things VALUES ('kept')"))
    await asyncio.sleep(0)
    go_on.set()
    with pytest.raises(StorageUnavailable):
        await refused_change
    await kept
    assert is_marked(tmp_path)
    await db.close()


async def test_a_database_says_that_it_is_open_from_its_first_change_until_its_log_is_not_needed_any_more(
    tmp_path: Path,
) -> None:
    for _ in range(2):
        db = await open_database(f"sqlite:///{tmp_path / 'one.db'}")
        assert not is_marked(tmp_path)
        await change(db, "CREATE TABLE IF NOT EXISTS things (name TEXT)")
        assert is_marked(tmp_path)
        await db.close()
        assert not is_marked(tmp_path)


async def test_a_start_that_writes_nothing_does_not_forget_that_the_database_was_not_closed(tmp_path: Path) -> None:
    path = tmp_path / "one.db"
    db = await open_database(f"sqlite:///{path}")
    await change(db, "CREATE TABLE things (name TEXT)")
    for name in ("one.db", "one.db-wal", "one.db.lock"):
        (tmp_path / "copy").mkdir(exist_ok=True)
        shutil.copy(tmp_path / name, tmp_path / "copy" / name)
    await db.close()
    copy = SqliteFile(tmp_path / "copy" / "one.db")
    copy.release()
    (tmp_path / "copy" / "one.db-wal").unlink()
    with pytest.raises(LogMissing):
        SqliteFile(tmp_path / "copy" / "one.db")


def is_marked(folder: Path) -> bool:
    """Whether the file beside a database says that it is open."""
    return "open" in (folder / "one.db.lock").read_text(encoding="utf-8").splitlines()


async def change(db: Database, statement: str) -> None:
    """A transaction of one statement."""
    async with db.write() as tx:
        await tx.execute(sa.text(statement))


async def test_a_log_that_was_long_is_cut_down(tmp_path: Path) -> None:
    db = await open_database(f"sqlite:///{tmp_path / 'one.db'}")
    log = tmp_path / "one.db-wal"
    try:
        lengths = []
        for size in (80 << 20, 1, 1):  # The log begins anew with the second change, or with the third.
            async with db.write() as tx:
                await tx.execute(sa.text("CREATE TABLE IF NOT EXISTS things (bytes BLOB)"))
                await tx.execute(sa.text(f"INSERT INTO things VALUES (zeroblob({size}))"))
            lengths.append(log.stat().st_size)
        assert max(lengths) > 80 << 20
        assert lengths[-1] <= 64 << 20
    finally:
        await db.close()


async def test_a_start_that_has_no_room_does_not_forget_that_the_database_was_not_closed(tmp_path: Path) -> None:
    path = tmp_path / "data" / "blobhub.db"
    server = ServerProcess(tmp_path / "data")
    async with server.running(), connected(server.address, server.admin_key) as api:
        await acme.organization(api)
    done = await asyncio.to_thread(
        subprocess.run,
        ["sh", "-c", 'ulimit -f 0; exec "$0" serve', COMMAND],
        env=environment(tmp_path / "data"),
        capture_output=True,
        text=True,
        check=False,
    )
    refused(done, "File too large")
    Path(f"{path}-wal").rename(tmp_path / "away")
    with pytest.raises(LogMissing):
        async with served(tmp_path / "data"):
            pass


async def refused_start(folder: Path, path: Path) -> None:
    """A server of another process does not open a database that one has."""
    done = await asyncio.to_thread(run, "serve", folder / "other", BLOBHUB_DATABASE_URL=f"sqlite:///{path}")
    refused(done, "another process (pid unknown)")


def replace(path: Path) -> None:
    """Put another file of the same bytes in the place of a file."""
    copy = path.with_suffix(".copy")
    shutil.copy(path, copy)
    copy.rename(path)


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
