"""Nobody has so many calls under way that what they hold fills the server."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from blobhub_server.blobtypes.conformance import reason_of
from blobhub_server.errors import Overloaded
from blobhub_server.rpc import under_way
from blobhub_server.rpc.room import Sender
from blobhub_server.rpc.under_way import UnderWay
from kinds import GOOD, answering, served
from waiting import until, within_deadline

SIZE = len(GOOD.SerializeToString())
ONE, OTHER = Sender(name="one", known=True), Sender(name="other", known=True)


@pytest.mark.parametrize("bound", [("MAX_CALLS", 3), ("MAX_BYTES", 4 * SIZE - 1)])
async def test_a_caller_who_has_as_much_under_way_as_may_be_is_told_to_come_again(
    bound: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(under_way, *bound)
    begun, release = 0, asyncio.Event()

    async def wait(_request, _call):
        nonlocal begun
        begun += 1
        await release.wait()
        return answering("acme")

    async with served(One=wait) as there:
        calls = [there.begin("One", GOOD) for _ in range(3)]
        await until(lambda: begun == 3)
        refused = await there.refused("One", GOOD)
        assert (refused.code(), reason_of(refused)) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED")
        release.set()
        for call in calls:
            await within_deadline(call)
        await there.call("One", GOOD)


def test_what_one_has_under_way_keeps_nobody_else_out_and_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(under_way, "MAX_CALLS", 1)
    counted = UnderWay()
    with counted.one_more(ONE, 1), counted.one_more(OTHER, 1), pytest.raises(Overloaded), counted.one_more(ONE, 1):
        pass
    with pytest.raises(Overloaded), counted.one_more(ONE, under_way.MAX_BYTES + 1):
        pass
    together = UnderWay(max_all_bytes=10)
    with together.one_more(ONE, 6), pytest.raises(Overloaded), together.one_more(OTHER, 5):
        pass
    with together.one_more(OTHER, 10):
        pass
    assert not +counted._calls
    assert not +counted._bytes
