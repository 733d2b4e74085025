"""Fixtures: databases, and servers on them."""

from __future__ import annotations

import pytest
from served import Api, Served, connected, served

pytest_plugins = ["databases", "issuer", "outputs", "scale"]


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
