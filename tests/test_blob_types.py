"""Blob types: the built-in ones and a stranger's pass the same suite; two of one name do not start."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import EntryPoint, distribution, entry_points
from pathlib import Path

import acme
import flows
import grpc
import models
import pytest
import schedules
from blobhub.v1 import (
    blob_pb2,
    definition_pb2,
    definition_pb2_grpc,
    limit_pb2,
    model_pb2,
    model_pb2_grpc,
    operation_pb2,
    operation_pb2_grpc,
    organization_pb2,
)
from blobhub_client import KeyChannel
from blobhub_server.app import running
from blobhub_server.blobtypes import registry
from blobhub_server.blobtypes.conformance import BlobTypeConformance, Hub, expect_refusal, unpack
from blobhub_server.blobtypes.contract import BlobType, Opened
from blobhub_server.blobtypes.registry import BlobTypes, BrokenBlobType, DuplicateBlobType, InstalledType
from blobhub_server.config import Settings
from blobhub_server.errors import NotFound
from calling import ask, outcome
from databases import collected, execute, select
from google.rpc import error_details_pb2
from onnx import ModelProto, helper
from onnx_models import model, relu
from served import Api, Served, ServerProcess, connected, served
from stranger.notes.v1 import notes_pb2, notes_pb2_grpc
from stranger_notes import NotesType
from stranger_notes.texts import NoteTexts


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
async def conformance_server(request, tmp_path_factory) -> AsyncIterator[Served]:
    """One server for the whole suite, on each kind of database."""
    url = None
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres").get_uri(database="postgres")
    async with served(tmp_path_factory.mktemp("conformance"), url) as made:
        yield made


@pytest.fixture
def blobhub_address(conformance_server: Served) -> str:
    return conformance_server.address


@pytest.fixture
async def blobhub_admin_key(conformance_server: Served) -> str:
    return conformance_server.admin_key


class TestWorkflow(BlobTypeConformance):
    """`blobhub.compute.workflow` keeps the promises of a blob type."""

    blob_type = "blobhub.compute.workflow"

    async def _put(self, hub: Hub, revision: str, document: str) -> None:
        stub = definition_pb2_grpc.DefinitionServiceStub(hub.channel)
        request = definition_pb2.PutDefinitionRequest(revision=revision, alias="workflow", document=document)
        await stub.PutDefinition(request, metadata=hub.metadata)

    async def put_valid(self, hub: Hub, revision: str) -> None:
        await self._put(hub, revision, flows.steps(2))

    async def put_invalid(self, hub: Hub, revision: str) -> None:
        await self._put(hub, revision, flows.document([], []))

    async def edit(self, hub: Hub, revision: str) -> None:
        await self._put(hub, revision, flows.steps(4))


class TestScheduler(BlobTypeConformance):
    """`blobhub.compute.scheduler` keeps them too."""

    blob_type = "blobhub.compute.scheduler"

    async def _api(self, hub: Hub) -> Api:
        """The stubs, and a workflow to invoke."""
        api = Api(KeyChannel(hub.channel, hub.metadata[0][1].removeprefix("Bearer ")), None)
        if await outcome(ask(api, "CreateOrganization", alias="scheduled")) == "OK":
            await acme.blob(api, "scheduled/pipeline")
        return api

    async def put_valid(self, hub: Hub, revision: str) -> None:
        await schedules.create(await self._api(hub), spec=self._spec, revision=revision)

    _spec = schedules.DAILY | {"invocation_target": {"revision": "scheduled/pipeline", "definition": "workflow"}}

    async def put_invalid(self, hub: Hub, revision: str) -> None:
        """A scheduler without schedules is none."""
        api = await self._api(hub)
        await schedules.create(api, spec=self._spec, revision=revision)
        await schedules.delete(api, f"{revision}/report")

    async def edit(self, hub: Hub, revision: str) -> None:
        await schedules.update(await self._api(hub), f"{revision}/report", description="Changed")


class TestModels(BlobTypeConformance):
    """`blobhub.model.onnx` keeps them as well."""

    blob_type = models.ONNX

    async def _put(self, hub: Hub, revision: str, model: ModelProto) -> None:
        stub = model_pb2_grpc.ModelServiceStub(hub.channel)
        request = model_pb2.PutModelRequest(revision=revision, content=model.SerializeToString())
        operation = (await stub.PutModel(request, metadata=hub.metadata)).operation
        watch = operation_pb2.WatchOperationRequest(operation=operation.id)
        stream = operation_pb2_grpc.OperationServiceStub(hub.channel).WatchOperation(watch, metadata=hub.metadata)
        last = [each async for each in stream][-1].operations[-1]
        assert last.HasField("response"), last

    async def put_valid(self, hub: Hub, revision: str) -> None:
        await self._put(hub, revision, relu())

    async def put_invalid(self, hub: Hub, revision: str) -> None:
        """A draft without a model is all that is invalid: what is no model never gets in."""

    async def edit(self, hub: Hub, revision: str) -> None:
        await self._put(hub, revision, model([helper.make_node("Abs", ["x"], ["y"])]))


class TestNotes(BlobTypeConformance):
    """A stranger's type keeps them too."""

    blob_type = "stranger.notes"

    async def _put(self, hub: Hub, revision: str, text: str) -> None:
        stub = notes_pb2_grpc.NotesServiceStub(hub.channel)
        request = notes_pb2.PutNoteRequest(revision=revision, name="first", text=text)
        await stub.PutNote(request, metadata=hub.metadata)

    async def put_valid(self, hub: Hub, revision: str) -> None:
        await self._put(hub, revision, "remember the milk")

    async def put_invalid(self, hub: Hub, revision: str) -> None:
        await self._put(hub, revision, "")

    async def edit(self, hub: Hub, revision: str) -> None:
        await self._put(hub, revision, "remember the bread")


@asynccontextmanager
async def without_notes(data_dir: Path, url: str, key: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Api]:
    """A client of a server on which the stranger's type is not installed."""
    points = [found for found in entry_points(group=registry.GROUP) if found.name != "stranger.notes"]
    with monkeypatch.context() as patch:
        patch.setattr(registry, "entry_points", lambda group: points)
        async with served(data_dir, url) as server, connected(server.address, key) as api:
            yield api


async def test_what_an_uninstalled_type_keeps_stops_a_deletion_and_the_type_is_named(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data_dir, refusal = tmp_path / "data", (grpc.StatusCode.FAILED_PRECONDITION, "BLOB_TYPE_NOT_INSTALLED")
    async with served(data_dir, database_url) as server, connected(server.address, server.admin_key) as api:
        await acme.organization(api)
        await acme.blob(api)
        await api.put(flows.steps(1))
        await acme.blob(api, "acme/notes", "stranger.notes")
        await ask(api, "PutNote", revision="acme/notes@draft", name="one", text="A note.")
        run = {"workflow": "acme/pipeline@draft", "definition": "workflow"}
        await ask(api, "RunNote", revision="acme/notes@draft", name="one", **run)
        other = (await acme.branch(api, (await acme.commit(api, "acme/notes@draft")).id, "acme/notes")).id
    async with without_notes(data_dir, database_url, server.admin_key, monkeypatch) as api:
        for deletion in (
            acme.delete_blob(api, "acme/notes", cascade=True),
            acme.delete_organization(api, cascade=True),
            ask(api, "DiscardRevision", revision=other),
            ask(api, "GetRevisionDependents", revision=other),
            acme.update_blob(api, "acme/notes", default_revision=other),
        ):
            info = error_details_pb2.ErrorInfo()
            assert unpack(await expect_refusal(deletion, *refusal), info)
            assert info.metadata["type"] == "stranger.notes"
        assert (await acme.get_blob(api, "acme/notes")).type == "stranger.notes"
    async with served(data_dir, database_url) as server, connected(server.address, api.key) as api:
        await acme.delete_organization(api, cascade=True)


async def test_a_blob_whose_type_has_gone_and_had_no_tables_is_deleted(api: Api, server: Served) -> None:
    await acme.organization(api)
    await acme.blob(api)
    await execute(server.settings.url, "UPDATE blobs SET type = 'stranger.plain'")
    await acme.delete_blob(api)


async def test_a_strangers_note_is_read_back(api: Api) -> None:
    await api.organizations.CreateOrganization(organization_pb2.CreateOrganizationRequest(alias="acme"))
    await api.blobs.CreateBlob(
        blob_pb2.CreateBlobRequest(organization="acme", alias="notes", type="stranger.notes", visibility="VISIBILITY_PUBLIC")
    )
    stub = notes_pb2_grpc.NotesServiceStub(api.channel)
    await stub.PutNote(notes_pb2.PutNoteRequest(revision="acme/notes@draft", name="one", text="hello"))
    answer = await stub.GetNote(notes_pb2.GetNoteRequest(revision="acme/notes", name="one"))
    assert answer.text == "hello"


class Reader(BlobType):
    """A type that needs what the stranger's offers, and knows nothing else of it."""

    name, title, description, needs = "other.reader", "Reader", "Reads notes.", (NoteTexts,)

    @asynccontextmanager
    async def open(self, host, given) -> AsyncIterator[Opened]:
        self.texts = given[NoteTexts]
        yield Opened(services=())

    async def validate(self, content):
        return []


async def test_what_a_stranger_offers_is_given_to_another_type_that_needs_it(tmp_path: Path, database_url: str) -> None:
    reader, settings = Reader(), Settings(data_dir=tmp_path, listen="127.0.0.1:0", database_url=database_url)
    installed = {item.type.name: item for item in BlobTypes.load().all()}
    types = BlobTypes(
        {**installed, reader.name: InstalledType(type=reader, distribution="a test", settings=reader.settings())}
    )
    async with running(settings, types) as server, connected(server.address, server.admin_key) as api:
        await acme.organization(api)
        await acme.blob(api, "acme/notes", "stranger.notes")
        await ask(api, "PutNote", revision="acme/notes@draft", name="one", text="hello")
        draft = await acme.get_revision(api, "acme/notes@draft")
        assert await reader.texts.read_note(draft.id, "one") == "hello"
        with pytest.raises(NotFound):
            await reader.texts.read_note(draft.id, "two")


def point(name: str, value: str, owner: str) -> EntryPoint:
    made = EntryPoint(name, value, "blobhub.blob_types")
    vars(made)["dist"] = distribution(owner)
    return made


def test_two_types_of_one_name_stop_the_start_and_are_both_named() -> None:
    points = [
        point("stranger.notes", "stranger_notes:NotesType", "blobhub-stranger"),
        point("stranger.notes", "stranger_notes:NotesType", "blobhub-client"),
    ]
    with pytest.raises(DuplicateBlobType, match=r"blobhub-stranger.*blobhub-client"):
        BlobTypes.load(points)


def test_a_type_that_does_not_load_stops_the_start_and_is_named() -> None:
    with pytest.raises(BrokenBlobType, match=r"other.type of blobhub-stranger"):
        BlobTypes.load([point("other.type", "stranger_notes:NotesType", "blobhub-stranger")])
    with pytest.raises(BrokenBlobType, match=r"stranger.notes of blobhub-stranger"):
        BlobTypes.load([point("stranger.notes", "stranger_notes:Nothing", "blobhub-stranger")])


@pytest.mark.parametrize("name", ["notes", "Stranger.notes", "stranger.my_notes", f"stranger.{'n' * 40}"])
def test_a_type_whose_name_is_none_stops_the_start(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NotesType, "name", name)
    with pytest.raises(BrokenBlobType, match="words of a-z and 0-9 with dots between"):
        BlobTypes.load([point(name, "stranger_notes:NotesType", "blobhub-stranger")])


ROOT = Path(__file__).resolve().parent.parent
SERVER = ROOT / "server" / "blobhub_server"


def test_the_server_names_no_blob_type() -> None:
    """It finds them; so a new one touches its own folder, and the line of `pyproject.toml` that is its entry point."""
    others = [path for path in SERVER.rglob("*.py") if SERVER / "workflow" not in path.parents]
    naming = [path for path in others if re.search(r"blobhub_server\.workflow|stranger[_.]notes", path.read_text())]
    assert naming == []


FOLDER = {
    "other_lists/__init__.py": """
from contextlib import asynccontextmanager
from pathlib import Path
import sqlalchemy as sa
from blobhub_server.blobtypes.contract import BlobType, Check, Limit, Opened
from blobhub_server.config import SettingsModel
from blobhub_server.db.parts import delete_some
from blobhub_server.db.schema import Id, metadata
from pydantic import Field

items = sa.Table(
    "other_items", metadata, sa.Column("id", Id(), primary_key=True), sa.Column("blob_id", Id())
)

class ListsSettings(SettingsModel):
    lists_order: str = Field("newest", description="What comes first.")

class ListsType(BlobType):
    name, title, description = "other.lists", "Lists", "Keeps lists."
    tables, migrations, settings = (items,), Path(__file__).parent / "migrations", ListsSettings

    @asynccontextmanager
    async def open(self, host, given):
        async def held(tx, blob_id):
            query = sa.select(sa.func.count()).select_from(items).where(items.c.blob_id == blob_id)
            return (await tx.execute(query)).scalar_one()
        async def collect(tx, blob_ids, rows):
            return await delete_some(tx, items, items.c.blob_id.in_(blob_ids), rows)
        yield Opened(services=(), collect=collect, limits=[Limit("lists.items", "Items of a list", 10, held)])

    async def validate(self, content):
        return []

    def checks(self, settings, given):
        async def look():
            return f"the {given[ListsSettings].lists_order} comes first"
        return [Check("order", look)]
""",
    "other_lists/migrations/0001_items.py": """
import sqlalchemy as sa
from alembic import op
revision, down_revision = "0001", None

def upgrade():
    op.create_table(
        "other_items",
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("blob_id", sa.String(36)),
    )
""",
    "other_lists-1.dist-info/METADATA": "Metadata-Version: 2.1\nName: other-lists\nVersion: 1\n",
    "other_lists-1.dist-info/entry_points.txt": "[blobhub.blob_types]\nother.lists = other_lists:ListsType\n",
}
"""All that somebody has to add to have another blob type, with a table, a limit, a setting and a check."""


async def test_a_folder_and_an_entry_point_are_all_that_another_type_takes(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in FOLDER.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    server = ServerProcess(tmp_path / "data", database_url, lists_order="oldest")
    async with server.running(), connected(server.address, server.admin_key) as api:
        await acme.organization(api)
        await acme.blob(api, "acme/groceries", "other.lists")
        limits = await api.limits.GetLimits(limit_pb2.GetLimitsRequest(parent="acme/groceries"))
        (limit,) = (item for item in limits.limits if item.name == "lists.items")
        assert (limit.held, limit.value) == (0, 10)
        await execute(database_url, "INSERT INTO other_items SELECT id, id FROM blobs")
        await acme.delete_blob(api, "acme/groceries")
        await collected(database_url)
        assert await select(database_url, "SELECT count(*) FROM other_items") == [(0,)]
        env = {"BLOBHUB_DATA_DIR": str(tmp_path / "data"), "BLOBHUB_DATABASE_URL": database_url}
        env |= {"BLOBHUB_LISTEN": server.address, "BLOBHUB_LISTS_ORDER": "oldest"}
        command = [Path(sys.executable).parent / "blobhub-server", "doctor"]
        done = await asyncio.to_thread(
            subprocess.run, command, env=os.environ | env, capture_output=True, text=True, check=True
        )
    assert "ok   other.lists, order: the oldest comes first\n" in done.stdout
    assert "other.lists is at 0001, as this program" in done.stdout
    assert "BLOBHUB_LISTS_ORDER" in done.stdout
