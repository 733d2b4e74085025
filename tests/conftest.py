"""Fixtures: databases, and servers on them."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from functools import cache
from importlib.metadata import entry_points

import pytest
from blobhub_server import logs
from blobhub_server.blobtypes import registry as blob_types
from blobhub_server.config import Settings
from blobhub_server.workflow.components import registry as components
from served import Api, Served, ServerProcess, connected, served

pytest_plugins = ["scale", "command_line", "databases", "fake_google", "figures", "handover", "issuer", "noise"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the tests that may take long: one of them at the end would leave the other processes with nothing to do."""
    items.sort(key=lambda item: item.get_closest_marker("timeout") is None)


def pytest_collection_finish() -> None:
    """Thousands of collected tests are no garbage: they would be gone through again and again in search of some.

    What a test makes goes when nothing refers to it, nearly all of it, so what else there is can wait ten times as long.
    """
    gc.freeze()
    gc.set_threshold(10 * gc.get_threshold()[0], *gc.get_threshold()[1:])


@pytest.fixture(scope="session", autouse=True)
def installed_once() -> Iterator[None]:
    """What is installed is looked up once a run, not at every start of a server: nothing is installed meanwhile."""
    with pytest.MonkeyPatch.context() as patch:
        for registry in (blob_types, components):
            patch.setattr(registry, "entry_points", cache(entry_points))
        yield


@pytest.fixture(autouse=True)
def no_server_outlives_its_test() -> Iterator[None]:
    """End the server processes that a test which failed has left; those that it shares with others go on."""
    shared = set(ServerProcess.alive)
    yield
    for server in ServerProcess.alive - shared:
        server.kill()


@pytest.fixture
def logs_set_back() -> Iterator[None]:
    """Set up the logs anew when a test has had standard error to itself: what they were writing to is closed then."""
    yield
    logs.set_up(Settings())


@pytest.fixture
async def server(tmp_path, database_url) -> Served:
    """A server in this process, on each kind of database in turn."""
    async with served(tmp_path / "data", database_url) as made:
        yield made


@pytest.fixture
async def api(server: Served) -> Api:
    """A client with the administrator's key."""
    async with connected(server.address, server.admin_key) as made:
        yield made


@pytest.fixture
async def anonymous(server: Served) -> Api:
    """A client without a key."""
    async with connected(server.address, None) as made:
        yield made
