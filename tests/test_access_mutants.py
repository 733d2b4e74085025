"""Whatever check is taken out of the access module or turned round, the matrix notices: no mutant survives."""

from __future__ import annotations

import inspect
import random

import grpc
import pytest
from blobhub_server.blobtypes.access import ANONYMOUS
from blobhub_server.errors import InvalidValue
from blobhub_server.platform.rules import access
from calling import METHODS
from figures import Figure
from matrix import beyond, cells, columns
from mutants import CHECKS, DECISIONS, mutants
from scale import sample, scaled
from served import connected, served
from world import Kind, Row, World, settings


async def wrong_cell(world: World, tried: list[tuple[Kind, list[Row]]]) -> str:
    """The first cell of some callers' rows that is not as it should be; empty when all are."""
    other = InvalidValue("field", "is no refusal")
    if access.refusal_for(ANONYMOUS, other) is not other:  # No cell of an anonymous caller leads to such an error.
        return "an anonymous caller is told of an error that is no refusal in other words"
    try:
        async for wrong in beyond(world):
            return wrong
        for kind, rows in tried:
            async for wrong in cells(world, rows, kind):
                return wrong
    except (AssertionError, grpc.aio.AioRpcError) as error:
        return f"a call failed: {error}"
    return ""


def test_no_function_of_the_access_module_is_left_out() -> None:
    functions = {
        name for name, item in vars(access).items() if inspect.isfunction(item) and item.__module__ == access.__name__
    }
    assert functions == {name for owner, name in DECISIONS if owner is access}


@pytest.mark.timeout(3600)
async def test_no_mutant_survives(tmp_path, figure: Figure) -> None:
    async with (
        served(tmp_path / "data", **settings(tmp_path)) as server,
        connected(server.address, server.admin_key) as api,
    ):
        world = World(server, api)
        await world.build()
        rows = world.rows(METHODS.values())
        random.Random(3).shuffle(rows)
        assert await wrong_cell(world, columns(rows, world.kinds)) == ""
        everything = [(kind, rows[start : start + 64]) for start in range(0, len(rows), 64) for kind in world.kinds]
        tried = sample(list(mutants()), lambda mutant: [(mutant.owner, mutant.name)], seed=4)
        survived = []
        for mutant in tried:
            with mutant.in_place():
                if not await wrong_cell(world, everything):
                    survived.append(str(mutant))
        assert not survived, "\n".join(survived)
        assert {(mutant.owner, mutant.name) for mutant in tried} == {*DECISIONS, *CHECKS}
        assert len(tried) > scaled(60, least=12)
        figure(f"{len(tried)} mutants, none survived")
