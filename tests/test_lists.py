"""Lists at size: complete and in order, at the same cost at the start and at the end, whatever is inserted meanwhile."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import pytest
from blobhub.v1 import api_key_pb2, blob_pb2, caller_pb2, user_pb2
from hoard import TARGETS, Hoard
from listings import PLATFORM_LISTINGS, Listing, blobs, organization_id
from methods import served_methods
from plans import Postgresql, Sqlite, Statement, asked, database
from scale import sample
from served import WORKFLOW, Api, connected, served
from workflow_listings import WORKFLOW_LISTINGS

PAGE = 50


def shown(listing: Listing) -> list[tuple[str, str]]:
    """Its method in each order, with each filter and by each caller that it is asked in."""
    return [(listing.rpc, part) for part in listing.note.split(", ")]


LISTINGS = [*PLATFORM_LISTINGS, *WORKFLOW_LISTINGS]
ASKED = sample(LISTINGS, shown, seed=5)
"""All lists at full scale. With fewer there are as many rows: the database goes about a small table otherwise."""


@dataclass
class Place:
    """A server with very much on it, the clients that ask it, and a connection of our own to its database."""

    hoard: Hoard
    database: Sqlite | Postgresql
    clients: dict[str, Api]


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
async def place(request, tmp_path_factory) -> AsyncIterator[Place]:
    folder = tmp_path_factory.mktemp("lists")
    kind = request.param
    url = f"sqlite:///{folder / 'hub.db'}" if kind == "sqlite" else await request.getfixturevalue("fresh_postgres")()
    async with served(folder, url) as server, connected(server.address, server.admin_key) as administrator:
        me = (await administrator.callers.GetCaller(caller_pb2.GetCallerRequest())).caller
        (member_id, member_key), (guest_id, guest_key) = [await user(administrator, name) for name in ("member", "guest")]
        hoard = Hoard(me.user_id, member_id, guest_id)
        await hoard.put(url)
        async with AsyncExitStack() as stack:
            keys = {"administrator": server.admin_key, "member": member_key, "guest": guest_key, "anonymous": None}
            clients = {name: await stack.enter_async_context(connected(server.address, key)) for name, key in keys.items()}
            yield Place(hoard=hoard, database=await stack.enter_async_context(database(url)), clients=clients)


async def user(administrator: Api, name: str) -> tuple[str, str]:
    """A new user's id and key."""
    made = await administrator.users.CreateUser(user_pb2.CreateUserRequest(name=name))
    key = await administrator.api_keys.CreateApiKey(api_key_pb2.CreateApiKeyRequest(parent=f"@{name}", role=3))
    return made.user.id, key.key


class Reader:
    """Reads a list page by page."""

    def __init__(self, place: Place, listing: Listing) -> None:
        service, _, method = listing.rpc.partition(".")
        self._call = getattr(getattr(place.clients[listing.client], service), method)
        self._request = listing.request(place.hoard)
        self._key = listing.key
        self.seen: list[Any] = []
        self.ended = False

    async def page(self, size: int) -> None:
        """Read the next page."""
        self._request.page_size = size
        answer = await self._call(self._request)
        ((_, items),) = ((field, value) for field, value in answer.ListFields() if field.is_repeated)
        assert len(items) <= size
        self.seen += [getattr(getattr(item, "record", item), self._key) for item in items]
        self._request.page_token = answer.next_page_token
        self.ended = not answer.next_page_token


async def page_of(reader: Reader) -> list[Statement]:
    """Read a page; return what the database was asked for it: how large its records are, where they may be, and those.

    What tasks ask that were there before, such as those that look for operations, is not for it.
    """
    there = asyncio.all_tasks()
    with asked() as everything:
        await reader.page(PAGE)
    statements = [statement for statement in everything if statement.task not in there]
    assert not [statement.sql for statement in statements if statement.counts]
    found = [statement for statement in statements if "LIMIT" in statement.sql]
    assert 1 <= len(found) <= 2
    return found


@pytest.mark.parametrize("listing", ASKED, ids=str)
async def test_a_list_is_complete_and_a_page_costs_the_same_anywhere(place: Place, listing: Listing) -> None:
    expected = [row[listing.key] for row in listing.rows(place.hoard)]
    assert len(expected) >= 4 * PAGE
    reader = Reader(place, listing)
    first = await page_of(reader)
    while (left := len(expected) - len(reader.seen) - 2 * PAGE) > 0:
        await reader.page(min(left, 1000))
    late = await page_of(reader)
    while not reader.ended:
        await reader.page(PAGE)
    assert reader.seen == expected

    for of_first, of_late in zip(first, late, strict=True):
        assert not await place.database.by_language(of_first)
        start, end = [await place.database.work(statement) for statement in (of_first, of_late)]
        for work in (start, end):
            assert work.indexes
            assert not work.scanned
            assert listing.sorts or listing.by_state or not work.sorts
            assert listing.sorts or work.effort <= place.database.little
        assert end.effort <= 2 * start.effort + 50


OTHERWISE = {
    "ListSchedules": "reads entries as ListDefinitions does, fifty at a time; filters and pages are in test_schedule.py",
    "ListFirings": "is read by the ids of a blob or a schedule; filters and pages are in test_firing_service.py",
    "ListModelUploads": "is read by the ids of a blob; filters and pages are in test_model_upload.py",
    "ListModelUploadParts": "lists what is in the object store, and no rows; its pages are in test_model_upload.py",
    "ListWaits": "is read by the id of a blob; filters and pages are in test_signal_by_key.py",
    "ListOperations": "is read by the ids of a blob; filters and pages are in test_operation_service.py",
    "ListTasks": "is read by the ids of a queue; filters and pages are in test_task.py",
    "ListUpcomingFirings": "lists times that are reckoned, and no rows; its pages are in test_schedule.py",
}


def test_every_list_of_the_contract_is_among_them() -> None:
    paged = {method.name for method in served_methods() if "page_token" in method.input.fields_by_name}
    assert {listing.rpc.partition(".")[2] for listing in LISTINGS} | OTHERWISE.keys() == paged


class Others:
    """Makes blobs in the large organization, changes and deletes them, and deletes some that were there."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._blobs = place.clients["administrator"].blobs
        self._numbers = itertools.count()
        self._made: list[str] = []

    async def act(self) -> None:
        """Do one of each."""
        for _ in range(2):
            alias = f"{'09az'[next(self._numbers) % 4]}{next(self._numbers)}"
            request = blob_pb2.CreateBlobRequest(organization=organization_id(self._place.hoard), alias=alias, type=WORKFLOW)
            self._made.append((await self._blobs.CreateBlob(request)).blob.id)
        await self._blobs.UpdateBlob(blob_pb2.UpdateBlobRequest(blob=self._made[-1], description="changed"))
        await self._delete(self._made.pop(len(self._made) // 2))
        gone = self._place.hoard["blobs"].pop(TARGETS + 37 * next(self._numbers) % 10_000)
        await self._delete(gone["id"])

    async def leave(self) -> None:
        """Delete what is left of what was made."""
        for id_ in self._made:
            await self._delete(id_)

    async def _delete(self, id_: str) -> None:
        await self._blobs.DeleteBlob(blob_pb2.DeleteBlobRequest(blob=id_))


@pytest.mark.parametrize("order_by", ["create_time", "update_time desc", "alias"])
async def test_what_others_do_meanwhile_neither_skips_nor_repeats(place: Place, order_by: str) -> None:
    reader, others = Reader(place, blobs(order_by)), Others(place)
    before = {row["id"] for row in place.hoard["blobs"]}
    while not reader.ended:
        await asyncio.gather(reader.page(1000), others.act())
    await others.leave()
    stayed = [row["id"] for row in blobs(order_by).rows(place.hoard)]
    there, gone = set(stayed), before.difference(stayed)
    assert gone
    assert [id_ for id_ in reader.seen if id_ in there] == stayed
    seen_before = [id_ for id_ in reader.seen if id_ in gone]
    assert len(seen_before) == len(set(seen_before))
