"""Doorbells: no ring is lost in a process, and PostgreSQL carries them between servers, whatever happens to it."""

from __future__ import annotations

from contextlib import asynccontextmanager, suppress

import pytest
import sqlalchemy as sa
from blobhub_server.db import notify, postgresql
from blobhub_server.db.notify import Doorbell
from blobhub_server.db.opening import open_database
from waiting import DEADLINE_SECONDS


@asynccontextmanager
async def two_servers(url: str):
    one, other = await open_database(url), await open_database(url)
    here, there = Doorbell(one), Doorbell(other)
    async with here.hearing(), there.hearing():
        # A new hearing wakes everybody: then it is known to hear.
        async with here.listen("anything") as first, there.listen("anything") as second:
            assert await first.wait(DEADLINE_SECONDS)
            assert await second.wait(DEADLINE_SECONDS)
        yield one, here, there
    await one.close()
    await other.close()


@pytest.fixture
def postgres_url(postgres):
    return postgres.get_uri(database="postgres")


async def test_a_ring_between_two_waits_is_not_lost_and_wakes_its_topic_alone():
    bell = Doorbell(None)  # a ring in this process needs no database
    async with bell.listen("a") as a, bell.listen("a") as also_a, bell.listen("b") as b:
        bell.ring("a")
        assert [await listener.wait(0) for listener in (a, also_a, b)] == [True, True, False]
        assert not await a.wait(0)
        bell.wake_all()
        assert [await listener.wait(0) for listener in (a, also_a, b)] == [True, True, True]
    bell.ring("a")
    assert not await a.wait(0)


async def test_another_server_is_rung_by_a_commit_and_by_nothing_else(postgres_url):
    async with (
        two_servers(postgres_url) as (db, here, there),
        there.listen("kept") as kept,
        there.listen("undone") as undone,
    ):
        with suppress(ZeroDivisionError):
            async with db.write() as tx:
                await here.announce(tx, ["undone"])
                raise ZeroDivisionError
        async with db.write() as tx:
            await here.announce(tx, ["kept", "other"])
        assert await kept.wait(DEADLINE_SECONDS)
        assert not await undone.wait(0)


async def test_a_server_is_told_what_others_ring_and_not_what_it_rings_itself(postgres_url):
    async with two_servers(postgres_url) as (db, here, there), there.listen("last") as last:
        heard_here, heard_there = [], []
        here.on_remote_ring(heard_here.append)
        there.on_remote_ring(heard_there.append)
        for topic in ("first", "last"):
            async with db.write() as tx:
                await here.announce(tx, [topic])
        assert await last.wait(DEADLINE_SECONDS)
        assert heard_there == ["first", "last"]
        async with here.listen("back") as back:
            async with db.write() as tx:
                await there.announce(tx, ["back"])
            assert await back.wait(DEADLINE_SECONDS)
        assert heard_here == ["back"]


async def test_a_lost_connection_is_made_again_and_everybody_is_woken(postgres_url):
    async with two_servers(postgres_url) as (db, here, there), there.listen("a") as a:
        await a.wait(0)
        async with db.write() as tx:
            await tx.execute(
                sa.text(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE pid <> pg_backend_pid() AND query LIKE 'LISTEN%'"
                )
            )
        assert await a.wait(DEADLINE_SECONDS)
        async with db.write() as tx:
            await here.announce(tx, ["a"])
        assert await a.wait(DEADLINE_SECONDS)


async def test_a_url_with_tls_settings_serves_the_doorbell_as_well(postgres_url):
    async with two_servers(f"{postgres_url}&sslmode=prefer"):
        pass


async def test_a_connection_lost_before_it_listens_is_made_again(postgres_url, monkeypatch):
    connections = []

    async def flaky(url):
        connection = await connect(url)
        connections.append(connection)
        if len(connections) == 1:
            await connection.close()
        return connection

    connect = postgresql.connect
    monkeypatch.setattr(postgresql, "connect", flaky)
    db = await open_database(postgres_url)
    bell = Doorbell(db)
    async with bell.listen("a") as a, bell.hearing():
        assert await a.wait(DEADLINE_SECONDS)
    await db.close()
    assert len(connections) == 2


async def test_a_silent_connection_is_checked_and_replaced(postgres_url, monkeypatch):
    """A firewall that drops a connection tells neither end: only a question shows it."""
    monkeypatch.setattr(notify, "CHECK_SECONDS", 0.01)
    connections = []

    async def dropped(url):
        connection = await connect(url)
        connections.append(connection)
        if len(connections) == 1:

            async def unanswered(*_, **__):
                raise TimeoutError

            return Wrapped(connection, unanswered)
        return connection

    class Wrapped:
        def __init__(self, connection, execute) -> None:
            self.execute = execute
            self.fetchval = connection.fetchval
            self.add_listener = connection.add_listener
            self.add_termination_listener = connection.add_termination_listener
            self.terminate = connection.terminate

    connect = postgresql.connect
    monkeypatch.setattr(postgresql, "connect", dropped)
    db = await open_database(postgres_url)
    bell = Doorbell(db)
    async with bell.listen("a") as a, bell.hearing():
        assert await a.wait(DEADLINE_SECONDS)
        assert await a.wait(DEADLINE_SECONDS)
    await db.close()
    assert len(connections) == 2
    assert connections[0].is_closed()
