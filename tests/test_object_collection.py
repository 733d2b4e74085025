"""Bytes that nothing refers to are removed, and no others."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Iterator
from uuid import uuid4

import acme
import flows
import operations
import pytest
from blobhub_server.blobtypes.registry import BlobTypes
from blobhub_server.errors import BlobTypeNotInstalled
from blobhub_server.objects.contract import ObjectNotFound
from blobhub_server.platform.blobs import object_collection
from blobhub_server.platform.blobs.object_collection import ObjectCollector
from calling import ask
from databases import collected
from operations import Gate, gate
from scale import scaled
from several_servers import ended, started, together
from stores import put_part

__all__ = ["gate"]

NOTES = "stranger.notes"


@pytest.fixture(autouse=True)
def collectors(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[ObjectCollector]]:
    """The collectors of the servers that are started, which collect when they are told to."""
    found: list[ObjectCollector] = []

    async def rest(collector: ObjectCollector) -> None:
        found.append(collector)
        await asyncio.Event().wait()

    monkeypatch.setattr(ObjectCollector, "collect_forever", rest)
    return found


async def passes(collectors: list[ObjectCollector], count: int = 2) -> int:
    """Take so many passes; how many objects were removed."""
    while not collectors:
        await asyncio.sleep(0)
    return sum([await collectors[0].take_pass() for _ in range(count)])


async def digests(opened) -> set[str]:
    return {stored.digest for stored in await opened.host.objects.page("", 1000)}


def digest_of(document: str) -> str:
    return hashlib.sha256(document.encode()).hexdigest()


async def test_what_no_entry_refers_to_is_removed_in_the_second_pass(tmp_path, database_url, collectors) -> None:
    async with together(tmp_path, database_url, count=1) as ((opened, api),):
        objects = opened.host.objects
        former, latter = flows.steps(1), flows.steps(2)
        await api.session(former)
        assert await passes(collectors, 3) == 0
        await api.put(latter)
        lost = await objects.put(bytes(3 << 20))
        assert await passes(collectors, 1) == 0
        assert await digests(opened) == {digest_of(former), digest_of(latter), lost}
        assert await passes(collectors, 1) == 2
        assert await digests(opened) == {digest_of(latter)}
        assert await passes(collectors, 3) == 0


async def test_what_is_stored_again_between_two_passes_stays(tmp_path, database_url, collectors) -> None:
    async with together(tmp_path, database_url, count=1) as ((opened, _),):
        objects = opened.host.objects
        digest = await objects.put(b"some bytes")
        for _ in range(5):
            assert await passes(collectors, 1) == 0
            await objects.put(b"some bytes")
        assert await passes(collectors, 2) == 1
        with pytest.raises(ObjectNotFound):
            await objects.get(digest)


async def test_the_definition_of_a_running_execution_stays_until_it_has_ended(tmp_path, database_url, collectors) -> None:
    document = flows.steps(1)
    async with together(tmp_path, database_url, count=1) as ((opened, api),):
        session_id = await api.session(flows.delay(3600))
        execution_id = await started(api, session_id)
        await api.put(document)
        assert await passes(collectors) == 0
        await ask(api, "StopExecution", execution=execution_id)
        await ended(api, execution_id)
        assert await passes(collectors) == 1
        assert await digests(opened) == {digest_of(document)}


async def test_what_deleted_blobs_held_is_removed_once_their_rows_are(tmp_path, database_url, collectors) -> None:
    async with together(tmp_path, database_url, count=1) as ((opened, api),):
        await api.session(flows.steps(1))
        await acme.delete_blob(api, cascade=True)
        await collected(database_url)
        assert await passes(collectors) == 1
        assert await digests(opened) == set()


async def test_more_than_is_kept_in_mind_is_removed_in_further_passes(
    tmp_path, database_url, collectors, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(object_collection, "AT_ONCE", 3)
    monkeypatch.setattr(object_collection, "MAX_CANDIDATES", 5)
    async with together(tmp_path, database_url, count=1) as ((opened, api),):
        document = flows.steps(1)
        await api.session(document)
        for number in range(20):
            await opened.host.objects.put(str(number).encode())
        assert await passes(collectors, 12) == 20
        assert await digests(opened) == {digest_of(document)}


async def test_an_upload_that_nobody_has_open_is_discarded(
    tmp_path, database_url, collectors, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with together(tmp_path, database_url, count=1) as ((opened, _),):
        objects, (ours, lost) = opened.host.objects, (str(uuid4()), str(uuid4()))
        still_open = {ours}

        async def uploads_open(_self, _tx, _ids) -> set[str]:
            return still_open

        monkeypatch.setattr(BlobTypes, "uploads_open", uploads_open)
        for upload_id in (ours, lost):
            await put_part(objects, upload_id, 1, b"a part")
        await passes(collectors, 1)
        assert {*await objects.uploads("", 10)} == {ours, lost}
        await passes(collectors, 1)
        assert await objects.uploads("", 10) == [ours]
        still_open.clear()
        await passes(collectors, 2)
        assert await objects.uploads("", 10) == []


async def test_what_a_writer_could_not_remove_is_swept(tmp_path, database_url, collectors) -> None:
    async with together(tmp_path, database_url, count=1) as ((opened, _),):
        left = opened.host.settings.data_dir / "objects" / "parts" / "left-behind"
        left.write_bytes(b"half of it")
        await passes(collectors, 1)
        assert not left.exists()


async def test_nothing_is_removed_while_a_type_that_may_need_it_is_not_installed(tmp_path, database_url, collectors) -> None:
    async with together(tmp_path, database_url, count=1) as ((opened, api),):
        await acme.organization(api)
        await acme.blob(api, "acme/notes", NOTES)
        await opened.host.objects.put(b"some bytes")
        await passes(collectors, 1)
        installed = collectors[0]._types._installed
        gone = installed.pop(NOTES)
        try:
            with pytest.raises(BlobTypeNotInstalled):
                await passes(collectors, 1)
        finally:
            installed[NOTES] = gone
        assert await passes(collectors, 2) == 1


async def test_of_random_changes_beside_passes_none_loses_what_is_there(tmp_path, database_url, collectors) -> None:
    """No change lasts from one pass to the next, as none lasts an hour."""
    dice, changes = random.Random(9), asyncio.Lock()
    documents = [flows.steps(count) for count in range(1, 6)]
    async with together(tmp_path, database_url, count=1) as ((opened, api),):
        await api.session(documents[0])
        put = {"workflow": documents[0]}

        async def change() -> None:
            for _ in range(scaled(60, least=10)):
                alias, document = dice.choice(["workflow", "a", "b"]), dice.choice(documents)
                async with changes:
                    await api.put(document, alias=alias)
                put[alias] = document
                await asyncio.sleep(0)

        async def collect() -> None:
            while not changing.done():
                await passes(collectors, 1)
                async with changes:
                    pass

        changing = asyncio.create_task(change())
        await asyncio.gather(changing, collect())
        await passes(collectors, 2)
        assert await digests(opened) == {digest_of(document) for document in put.values()}
        for document in put.values():
            assert await opened.host.objects.get(digest_of(document)) == document.encode()


async def test_what_an_operation_needs_stays_until_it_has_ended(gate: Gate, tmp_path, database_url, collectors) -> None:
    async with together(tmp_path, database_url, count=1) as ((opened, api),):
        await operations.blob(api, text="needed")
        begun = await operations.begin(api)
        await operations.put(api, text="other")
        assert await passes(collectors, 3) == 0
        assert await digests(opened) == {digest_of("needed"), digest_of("other")}
        await operations.cancel(api, begun.id)
        assert await passes(collectors) == 1
        assert await digests(opened) == {digest_of("other")}
