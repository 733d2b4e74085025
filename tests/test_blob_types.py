"""Blob types: the built-in ones and a stranger's pass the same suite; two of one name do not start."""

from __future__ import annotations

from collections.abc import AsyncIterator
from importlib.metadata import EntryPoint, distribution

import flows
import pytest
from blobhub.v1 import blob_pb2, definition_pb2, definition_pb2_grpc, organization_pb2
from blobhub_server.blobtypes.conformance import BlobTypeConformance, Hub
from blobhub_server.blobtypes.registry import BlobTypes, BrokenBlobType, DuplicateBlobType
from served import Api, Served, served
from stranger.notes.v1 import notes_pb2, notes_pb2_grpc
from stranger_notes import NotesType


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


async def test_a_strangers_note_is_read_back(api: Api) -> None:
    await api.organizations.CreateOrganization(organization_pb2.CreateOrganizationRequest(alias="acme"))
    await api.blobs.CreateBlob(
        blob_pb2.CreateBlobRequest(organization="acme", alias="notes", type="stranger.notes", visibility="VISIBILITY_PUBLIC")
    )
    stub = notes_pb2_grpc.NotesServiceStub(api.channel)
    await stub.PutNote(notes_pb2.PutNoteRequest(revision="acme/notes@draft", name="one", text="hello"))
    answer = await stub.GetNote(notes_pb2.GetNoteRequest(revision="acme/notes", name="one"))
    assert answer.text == "hello"


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
