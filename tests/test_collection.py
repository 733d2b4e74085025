"""Deletions: gone with the call, and collected afterwards in short transactions."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import acme
import flows
import pytest
from blobhub_server.app import running
from blobhub_server.blobtypes.registry import BlobTypes
from blobhub_server.config import Settings
from blobhub_server.platform.blobs import collection
from blobhub_server.platform.blobs.collection import Collector
from calling import ask, outcome
from databases import collected, execute, select
from multiplied import multiply_blob
from populating import everything, held, populated
from scale import scaled
from served import WORKFLOW, Api, Served, ServerProcess, connected, served
from waiting import until, within_deadline

BLOBS = scaled(5_000, least=60)


async def _rest(_: Collector) -> None:
    await asyncio.Event().wait()


@asynccontextmanager
async def uncollected(data_dir: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Served, Api]]:
    """A server that collects nothing."""
    with monkeypatch.context() as patch:
        patch.setattr(Collector, "collect_forever", _rest)
        async with served(data_dir, url) as server, connected(server.address, server.admin_key) as api:
            yield server, api


@asynccontextmanager
async def restarted(data_dir: Path, url: str) -> AsyncIterator[None]:
    """The next server on the same data."""
    settings = Settings(listen="127.0.0.1:0", log_level="debug", data_dir=data_dir, database_url=url)
    async with running(settings, BlobTypes.load()):
        yield


async def ids_in(api: Api) -> dict[str, dict[str, str]]:
    """Methods that look at one thing by its id alone, and the ids in `acme`, by their fields."""
    blob, draft = await acme.get_blob(api, "acme/one"), await acme.get_revision(api, "acme/one@draft")
    session, *_ = (await ask(api, "ListSessions", blob="acme/one")).sessions
    run, *_ = (await ask(api, "ListExecutions", blob="acme/one")).executions
    key, *_ = (await ask(api, "ListApiKeys", parent="acme/one")).api_keys
    credential, *_ = (await ask(api, "ListCredentials", parent="acme/one")).credentials
    note = await acme.get_revision(api, "acme/notes@draft")
    made = await ask(api, "RunNote", revision=note.id, name="one", workflow=draft.id, definition="workflow")
    begun = (await ask(api, "CapitalizeNote", revision=note.id, name="one")).operation
    return {
        "GetBlob": {"blob": blob.id},
        "GetLimits": {"parent": blob.id},
        "ListRevisions": {"blob": blob.id},
        "ListWaits": {"blob": blob.id},
        "SendSignal": {"blob": blob.id, "name": "go"},
        "ListMembers": {"parent": blob.id},
        "ListMetadata": {"parent": blob.id},
        "WatchBlob": {"blob": blob.id},
        "GetRevision": {"revision": draft.id},
        "GetSession": {"session": session.id},
        "ListSessionObjects": {"session": session.id},
        "ListEvents": {"session": session.id},
        "WatchSession": {"session": session.id},
        "CloseSession": {"session": session.id},
        "GetExecution": {"execution": run.id},
        "SignalExecution": {"execution": run.id, "name": "go"},
        "StopExecution": {"execution": run.id},
        "WatchExecution": {"execution": run.id},
        "GetApiKey": {"api_key": key.id},
        "RevokeApiKey": {"api_key": key.id},
        "GetCredential": {"credential": credential.id},
        "GetNoteRun": {"note_run": made.run_id},
        **{method: {"operation": begun.id} for method in ("GetOperation", "WatchOperation", "CancelOperation")},
    }


@pytest.mark.parametrize("whole", ["blobs", "organization"])
async def test_what_is_deleted_is_gone_at_once_and_collected_by_the_next_server(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch, whole: str
) -> None:
    async with uncollected(tmp_path / "data", database_url, monkeypatch) as (server, api):
        await acme.user(api, "ann")
        await acme.organization(api, "other")
        before = await everything(database_url)
        await populated(api, "acme")
        await acme.rename_organization(api, "acme-renamed", "acme")
        found = await ids_in(api)
        blob_key = (await acme.key(api, "acme/one")).key
        request_id = str(uuid.uuid4())
        if whole == "blobs":
            for alias in ("one", "two", "notes"):
                await acme.delete_blob(api, f"acme/{alias}", cascade=True, request_id=request_id if alias == "one" else "")
            await acme.delete_blob(api, "acme/one", cascade=True, request_id=request_id)
        else:
            await acme.delete_organization(api, "acme", cascade=True, request_id=request_id)
            await acme.delete_organization(api, "acme", cascade=True, request_id=request_id)
        assert await select(database_url, "SELECT count(*) FROM sessions") != [(0,)], "it is all there still"
        for name, fields in found.items():
            unknown = {field: str(uuid.uuid4()) for field in fields}
            assert await outcome(ask(api, name, **fields)) == await outcome(ask(api, name, **unknown)) != "OK", name
        async with connected(server.address, blob_key) as with_key:
            await until(lambda: is_refused(with_key))
        if whole == "organization":
            await acme.organization(api, "acme")
        for alias in ("one", "one-former"):
            await acme.blob(api, f"acme/{alias}")
            await acme.update_blob(api, f"acme/{alias}", alias=f"{alias}-renamed")
            await acme.delete_blob(api, f"acme/{alias}-renamed")
        await acme.delete_organization(api, "acme")
    async with restarted(tmp_path / "data", database_url):
        await collected(database_url)
        assert await everything(database_url) == before


async def is_refused(api: Api) -> bool:
    return await outcome(ask(api, "GetCaller")) == "UNAUTHENTICATED"


async def test_an_execution_of_a_deleted_blob_keeps_no_other_blob_in_use(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with uncollected(tmp_path / "data", database_url, monkeypatch) as (_, api):
        await acme.organization(api)
        for alias in ("runs", "defines"):
            await acme.blob(api, f"acme/{alias}")
            await api.put(flows.delay(3600), revision=f"acme/{alias}@draft")
        session = await acme.session(api, "acme/runs@draft")
        await ask(api, "StartExecution", session=session.id, spec={"definition": "workflow"})
        other = (await acme.get_blob(api, "acme/defines")).id
        await execute(database_url, f"UPDATE executions SET definition_blob_id = '{other}'")
        assert await outcome(acme.delete_blob(api, "acme/defines")) == "NOT_EMPTY"
        await acme.delete_blob(api, "acme/runs", cascade=True)
        await acme.delete_blob(api, "acme/defines")


async def filled(api: Api, url: str) -> None:
    """Make `acme` with many blobs, each with a session and what ran there."""
    await ask(api, "RunExecution", session=await api.session(flows.steps(2)), spec={"definition": "workflow"})
    await multiply_blob(url, (await acme.get_blob(api)).id, BLOBS)


async def test_a_collection_that_is_killed_is_finished_at_the_next_start_and_takes_nothing_else(
    tmp_path: Path, database_url: str
) -> None:
    server = ServerProcess(tmp_path / "data", database_url)
    await server.start()
    key = server.admin_key
    async with connected(server.address, key) as api:
        await acme.organization(api, "other")
        await acme.blob(api, "other/blob")
        await held_by(api)
        before = await everything(database_url)
        await filled(api, database_url)
        await acme.delete_organization(api, cascade=True)
        for left in (0.9, 0.5, 0.1):
            await until(lambda left=left: _has_fallen(database_url, left))
            server.kill()
            await server.start()
    async with connected(server.address, key) as api:
        await collected(database_url)
        assert await everything(database_url) == before
        assert (await acme.get_blob(api, "other/blob")).alias == "blob"
    server.kill()


async def held_by(api: Api) -> None:
    """Give what stays a member, a key, a credential and a limit."""
    await acme.user(api, "ann")
    await held(api, "other/blob", "blob.revisions")


async def _has_fallen(url: str, left: float) -> bool:
    """Whether so small a part of the blobs that were deleted still has a log."""
    ((logs,),) = await select(url, "SELECT count(DISTINCT blob_id) FROM blob_events")
    return logs <= 1 + left * BLOBS


async def test_others_write_between_the_transactions_of_a_collection(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The collector goes on only when a call has been committed since its last transaction."""
    take_step, written, steps = Collector._take_step, asyncio.Event(), 0

    async def wait_for_a_write(self: Collector, after: str) -> str | None:
        nonlocal steps
        steps += 1
        next_ = await take_step(self, after)
        written.clear()
        await within_deadline(written.wait())
        return next_

    monkeypatch.setattr(Collector, "_take_step", wait_for_a_write)
    async with served(tmp_path / "data", database_url) as server, connected(server.address, server.admin_key) as api:
        await acme.organization(api, "other")
        await acme.blob(api, "other/blob")
        await filled(api, database_url)
        written.set()
        await acme.delete_organization(api, cascade=True)
        collecting = asyncio.create_task(collected(database_url))
        writes = 0
        while not collecting.done():
            await within_deadline(acme.update_blob(api, "other/blob", description=str(writes)))
            writes += 1
            written.set()
        taken = steps  # The last write lets the collector take one more.
        await collecting
    assert writes >= taken - 1 > BLOBS // collection.DELETIONS_AT_ONCE


async def test_a_draft_begins_with_all_entries_of_its_base_however_many(api: Api, server: Served) -> None:
    url = server.settings.url
    await acme.organization(api)
    await acme.blob(api, type_=WORKFLOW)
    await api.put(flows.steps(1))
    base = await acme.commit(api)
    numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1201)"
    columns = "revision_id, blob_id, digest, size, create_time, update_time"
    made = f"{numbers} SELECT CAST(i AS varchar(36)), 'n' || i, {columns} FROM n, entries"
    await execute(url, f"INSERT INTO entries (id, name, {columns}) {made}")
    draft = await acme.branch(api)
    names = "SELECT name, digest FROM entries WHERE revision_id = '{}' ORDER BY name"
    assert await select(url, names.format(draft.id)) == await select(url, names.format(base.id))
