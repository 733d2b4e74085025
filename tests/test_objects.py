"""The object store: bytes under their digest, whole or not at all."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import itertools
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import acme
import flows
import grpc
import pytest
from blobhub.v1 import definition_pb2
from blobhub_server.blobtypes.conformance import expect_refusal, unpack
from blobhub_server.errors import ContentLost, StorageFull, StorageUnavailable
from blobhub_server.objects.contract import ObjectNotFound
from blobhub_server.objects.local import LocalObjects
from blobhub_server.objects.outline import BLOCK_BYTES
from google.rpc import error_details_pb2
from scale import scaled
from served import Api, Served, served
from stores import read


@pytest.mark.parametrize(
    ("number", "error"), [(errno.ENOSPC, StorageFull), (errno.EDQUOT, StorageFull), (errno.EIO, StorageUnavailable)]
)
async def test_a_put_that_cannot_write_says_why_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, error: type[StorageUnavailable]
) -> None:
    store = LocalObjects(tmp_path)

    def fail(_descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fail)
        with pytest.raises(error) as raised:
            await store.put(b"some bytes")
        assert type(raised.value) is error
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


async def test_bytes_are_synced_then_named_then_the_folders_are_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The order that a power cut cannot break, an outline before its object. What was there already may be corrupt."""
    store, steps = LocalObjects(tmp_path), list[Path | str]()
    fsync, rename = os.fsync, Path.rename

    def synced(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").resolve()
        steps.append(path if path.is_dir() else "bytes")
        fsync(descriptor)

    def renamed(path: Path, target: Path) -> Path:
        steps.append("name")
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "rename", renamed)
    for data, files in ((b"some bytes", 1), (bytes(BLOCK_BYTES + 1), 2)):
        for _ in range(2):
            digest = await store.put(data)
            folders = [tmp_path / "sha256" / digest[:2], tmp_path / "sha256"]
            assert steps == ["bytes", "name", *folders] * files
            steps.clear()


def test_a_killed_put_leaves_all_or_nothing(tmp_path: Path) -> None:
    seed = random.Random(3)
    code = (
        "import asyncio, sys, pathlib; from blobhub_server.objects.local import LocalObjects\n"
        "store = LocalObjects(pathlib.Path(sys.argv[1])); print('ready', flush=True)\n"
        "async def main():\n"
        "    n = 0\n"
        "    while True:\n"
        "        await store.put(n.to_bytes(8, 'big') * 20_000); n += 1\n"
        "asyncio.run(main())\n"
    )
    for _ in range(scaled(5, least=2)):
        with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(seed.uniform(0.01, 0.2))
            process.send_signal(signal.SIGKILL)
    found = [path for path in (tmp_path / "sha256").rglob("*") if path.is_file()]
    assert found
    for path in found:
        assert hashlib.sha256(path.read_bytes()).hexdigest() == path.parent.name + path.name


async def test_a_writer_whose_append_was_cancelled_keeps_nothing(tmp_path: Path) -> None:
    """What it has taken may have a hole, so it takes no more and cannot be committed."""
    store = LocalObjects(tmp_path)
    async with store.write() as writer:
        task = asyncio.create_task(writer.append(bytes(64 * BLOCK_BYTES)))
        while not list((tmp_path / "parts").iterdir()):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(RuntimeError):
            await writer.commit()
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def lengthen(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def delete(path: Path) -> None:
    path.unlink()


HARMS = [flip, truncate, lengthen, delete]
HARMED = [
    *itertools.product(HARMS, [1, 10, BLOCK_BYTES, BLOCK_BYTES + 1, 3 * BLOCK_BYTES], [""]),
    *itertools.product(HARMS, [BLOCK_BYTES + 1, 3 * BLOCK_BYTES], [".outline"]),
    *itertools.product([lengthen, delete], [0], [""]),
]


@pytest.mark.parametrize(("harm", "size", "suffix"), HARMED)
async def test_a_harmed_object_is_lost_and_writing_it_again_repairs_it(
    tmp_path: Path, harm: Callable[[Path], None], size: int, suffix: str
) -> None:
    store, data = LocalObjects(tmp_path), random.Random(size).randbytes(size)
    digest = await store.put(data)
    path = tmp_path / "sha256" / digest[:2] / (digest[2:] + suffix)
    harm(path)
    lost = ObjectNotFound if harm is delete and not suffix else ContentLost
    with pytest.raises(lost):
        await store.get(digest)
    with pytest.raises(lost):
        await read(store, digest, size // 2, 1)
    assert await store.put(data) == digest
    assert await store.get(digest) == data


async def test_a_harmed_block_spoils_no_other_range(tmp_path: Path) -> None:
    store, data = LocalObjects(tmp_path), random.Random(4).randbytes(3 * BLOCK_BYTES)
    digest = await store.put(data)
    flip(tmp_path / "sha256" / digest[:2] / digest[2:])
    end = 2 * BLOCK_BYTES
    assert await read(store, digest, 5, BLOCK_BYTES - 5) == data[5:BLOCK_BYTES]
    assert await read(store, digest, end) == data[end:]
    chunks = store.read(digest)
    assert await anext(chunks) == data[:BLOCK_BYTES]
    with pytest.raises(ContentLost):
        await anext(chunks)


async def test_an_outline_of_another_object_is_not_believed(tmp_path: Path) -> None:
    store = LocalObjects(tmp_path)
    one, other = [await store.put(bytes([n]) * (BLOCK_BYTES + 1)) for n in range(2)]
    for suffix in ("", ".outline"):
        shutil.copy(*(tmp_path / "sha256" / digest[:2] / (digest[2:] + suffix) for digest in (one, other)))
    with pytest.raises(ContentLost):
        await read(store, other)


def test_a_killed_writer_leaves_no_object_and_its_part_is_swept(tmp_path: Path) -> None:
    code = (
        "import asyncio, sys, pathlib; from blobhub_server.objects.local import LocalObjects\n"
        "store = LocalObjects(pathlib.Path(sys.argv[1]))\n"
        "async def main():\n"
        "    n = 0\n"
        "    while True:\n"
        "        async with store.write() as writer:\n"
        "            for _ in range(40):\n"
        "                await writer.append(n.to_bytes(8, 'big') * 10_000)\n"
        "            await writer.commit()\n"
        "        n += 1; print('kept', flush=True)\n"
        "asyncio.run(main())\n"
    )
    seed, parts = random.Random(5), tmp_path / "parts"
    for _ in range(scaled(5, least=2)):
        with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(seed.uniform(0.01, 0.1))
            while not list(parts.iterdir()):
                pass
            asyncio.run(LocalObjects(tmp_path).sweep())
            process.send_signal(signal.SIGKILL)
    asyncio.run(LocalObjects(tmp_path).sweep())
    assert list(parts.iterdir()) == []
    store = LocalObjects(tmp_path)
    found = [path for path in (tmp_path / "sha256").rglob("*") if path.is_file() and path.suffix != ".outline"]
    assert found
    for path in found:
        digest = path.parent.name + path.name
        assert hashlib.sha256(asyncio.run(store.get(digest))).hexdigest() == digest


async def test_a_sweep_leaves_what_is_being_written(tmp_path: Path) -> None:
    store, data = LocalObjects(tmp_path), bytes(2 * BLOCK_BYTES)
    async with store.write() as writer:
        await writer.append(data)
        (tmp_path / "parts" / "left-behind").touch()
        await LocalObjects(tmp_path).sweep()
        assert len(list((tmp_path / "parts").iterdir())) == 1
        assert await store.get(await writer.commit()) == data


async def test_a_server_sweeps_when_it_starts(tmp_path: Path, database_url: str) -> None:
    parts = tmp_path / "objects" / "parts"
    parts.mkdir(parents=True)
    (parts / "left-behind").write_bytes(b"half of it")
    async with served(tmp_path, database_url):
        assert list(parts.iterdir()) == []


@pytest.mark.either_database
@pytest.mark.parametrize("harm", HARMS)
async def test_harmed_content_is_data_loss_until_the_same_document_is_put_again(
    server: Served, api: Api, harm: Callable[[Path], None]
) -> None:
    await acme.organization(api)
    await acme.blob(api)
    document = flows.steps(2)
    digest = hashlib.sha256(document.encode()).hexdigest()
    await api.put(document)
    commit = await acme.commit(api)
    draft = await acme.branch(api, commit.id)
    harm(server.settings.data_dir / "objects" / "sha256" / digest[:2] / digest[2:])
    get = definition_pb2.GetDefinitionRequest(definition=f"{commit.id}/workflow")
    error = await expect_refusal(api.definitions.GetDefinition(get), grpc.StatusCode.DATA_LOSS, "CONTENT_LOST")
    info = error_details_pb2.ErrorInfo()
    assert unpack(error, info)
    assert dict(info.metadata) == {"digest": digest}
    await expect_refusal(acme.commit(api, draft.id), grpc.StatusCode.DATA_LOSS, "CONTENT_LOST")
    await api.put(document, revision=draft.id, alias="repaired")
    assert (await api.definitions.GetDefinition(get)).document == document
    assert (await acme.get_revision(api, commit.id)) == commit
