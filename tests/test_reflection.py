"""Reflection answers descriptors with their comments, over both versions, for services of ours and of strangers."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import grpc
import pytest
import structlog
from blobhub.v1 import access_pb2, blob_pb2
from blobhub_server.rpc.comments import OURS, Comments
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest
from served import Served, connected

pytestmark = pytest.mark.either_database

GRPCURL = Path(sys.executable).parent / "grpcurl"
OF_BLOBS = FileDescriptorProto.FromString(blob_pb2.DESCRIPTOR.serialized_pb)
"""A file as the pool knows it, without comments."""


async def describe(server: Served, symbol: str) -> str:
    command = [GRPCURL, "-plaintext", server.address, "describe", symbol]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=True)
    return done.stdout


@pytest.mark.parametrize(
    ("symbol", "said"),
    [
        ("blobhub.v1.BlobService", "// Creates, finds, changes, deletes and watches blobs."),
        ("blobhub.v1.BlobService.GetBlob", "// Errors:\n// * INVALID_ARGUMENT: "),
        ("blobhub.v1.Blob", "// A typed, versioned unit of data."),
        ("blobhub.v1.Blob", "  // UUIDv7, stable for the life of the blob.\n  string id = 1;"),
        ("blobhub.v1.Visibility", "  // Members and key holders alone.\n  VISIBILITY_PRIVATE = 1;"),
        ("blobhub.v1.ExecutionService.StartExecution", "// Errors:"),
        ("stranger.notes.v1.NotesService", "// Writes, reads and runs the notes of a revision."),
        (
            "stranger.notes.v1.NotesService.PutNote",
            "// Writes a note into a draft, in place of the one with that name",
        ),
        ("stranger.notes.v1.PutNoteRequest", "  // The note's name."),
    ],
)
async def test_grpcurl_describes_with_comments(server: Served, symbol: str, said: str) -> None:
    assert said in await describe(server, symbol)


async def ask(server: Served, version: str, request: ServerReflectionRequest) -> Sequence[FileDescriptorProto]:
    """The files that reflection answers."""
    async with connected(server.address, None) as api:
        call = api.channel.stream_stream(
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
            ServerReflectionRequest.SerializeToString,
            reflection_pb2.ServerReflectionResponse.FromString,
        )(iter([request]))
        answer = await call.read()
    return [FileDescriptorProto.FromString(file) for file in answer.file_descriptor_response.file_descriptor_proto]


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
@pytest.mark.parametrize(
    "request_",
    [
        ServerReflectionRequest(file_by_filename="blobhub/v1/access.proto"),
        ServerReflectionRequest(file_containing_symbol="blobhub.v1.Role"),
        ServerReflectionRequest(
            file_containing_extension=reflection_pb2.ExtensionRequest(
                containing_type="google.protobuf.MethodOptions",
                extension_number=access_pb2.DESCRIPTOR.extensions_by_name["access"].number,
            )
        ),
    ],
    ids=["by name", "by symbol", "by extension"],
)
async def test_a_file_has_its_comments_however_it_is_asked_for(
    server: Served, version: str, request_: ServerReflectionRequest
) -> None:
    files = {file.name: file for file in await ask(server, version, request_)}
    places = files["blobhub/v1/access.proto"].source_code_info.location
    assert " May see and change content, and run things.\n" in {place.leading_comments for place in places}


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
async def test_comments_are_all_that_is_added(server: Served, version: str) -> None:
    files = await ask(server, version, ServerReflectionRequest(file_containing_symbol="blobhub.v1.BlobService"))
    (file,) = (file for file in files if file.name == OF_BLOBS.name)
    assert file.source_code_info.location
    file.ClearField("source_code_info")
    assert file == OF_BLOBS


def image(path: Path, *files: FileDescriptorProto) -> Path:
    path.write_bytes(FileDescriptorSet(file=files).SerializeToString())
    return path


def of_another_version() -> FileDescriptorProto:
    """A file with comments on a message that the served one does not have."""
    (file,) = (file for file in FileDescriptorSet.FromString(OURS.read_bytes()).file if file.name == OF_BLOBS.name)
    file.message_type.add(name="Newer")
    return file


def test_an_image_of_another_version_of_a_file_adds_nothing_and_says_so(tmp_path: Path) -> None:
    comments, served = Comments([image(tmp_path / "newer.binpb", of_another_version())]), OF_BLOBS.SerializeToString()
    with structlog.testing.capture_logs() as logged:
        assert [comments.add(served), comments.add(served)] == [served, served]
    assert [(line["event"], line["file"]) for line in logged] == [("comments_of_another_version", OF_BLOBS.name)]


@pytest.mark.parametrize("data", [None, b"\xff\xff"], ids=["absent", "no descriptor set"])
def test_an_image_that_cannot_be_read_costs_its_own_comments_only(tmp_path: Path, data: bytes | None) -> None:
    broken = tmp_path / "broken.binpb"
    if data is not None:
        broken.write_bytes(data)
    comments = Comments([broken, OURS])
    with structlog.testing.capture_logs() as logged:
        assert FileDescriptorProto.FromString(comments.add(OF_BLOBS.SerializeToString())).source_code_info.location
    assert [(line["event"], line["image"]) for line in logged] == [("unreadable_comments", str(broken))]


def test_images_are_not_read_before_somebody_asks(tmp_path: Path) -> None:
    later = tmp_path / "later.binpb"
    comments = Comments([later])
    image(later, *FileDescriptorSet.FromString(OURS.read_bytes()).file)
    assert FileDescriptorProto.FromString(comments.add(OF_BLOBS.SerializeToString())).source_code_info.location


async def test_reflection_of_services_without_an_image_works(server: Served) -> None:
    assert "rpc Check" in await describe(server, "grpc.health.v1.Health")
    (file, *_) = await ask(server, "v1", ServerReflectionRequest(file_containing_symbol="grpc.health.v1.Health"))
    assert not file.source_code_info.location


async def test_an_unknown_symbol_is_not_found(server: Served) -> None:
    with pytest.raises(subprocess.CalledProcessError):
        await describe(server, "blobhub.v1.Nothing")
    async with connected(server.address, None) as api:
        call = api.channel.stream_stream(
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
            ServerReflectionRequest.SerializeToString,
            reflection_pb2.ServerReflectionResponse.FromString,
        )(iter([ServerReflectionRequest(file_containing_symbol="blobhub.v1.Nothing")]))
        assert (await call.read()).error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]
