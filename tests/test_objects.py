"""The object store: bytes under their digest, whole or not at all."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from blobhub_server.objects.contract import CorruptObject, ObjectNotFound, ObjectStore
from blobhub_server.objects.local import LocalObjects
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scale import scaled


@pytest.fixture(params=[LocalObjects])
def store(request, tmp_path: Path) -> ObjectStore:
    return request.param(tmp_path / "objects")


@settings(max_examples=scaled(30, least=10), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=5000))
async def test_what_was_put_is_got_by_its_digest(store: ObjectStore, data: bytes) -> None:
    digest = await store.put(data)
    assert digest == hashlib.sha256(data).hexdigest()
    assert await store.put(data) == digest
    assert await store.get(digest) == data
    assert await store.exists(digest)


@pytest.mark.parametrize("digest", ["0" * 64, "", "../../etc/passwd", "0" * 63 + "G", "A" * 64, "0" * 64 + "\n"])
async def test_what_is_not_there_is_not_found_and_no_name_becomes_a_path(store: ObjectStore, digest: str) -> None:
    assert not await store.exists(digest)
    with pytest.raises(ObjectNotFound):
        await store.get(digest)


async def test_the_same_bytes_from_many_at_once_are_one_object(store: ObjectStore) -> None:
    data = random.Random(1).randbytes(1 << 20)
    (digest,) = set(await asyncio.gather(*(store.put(data) for _ in range(16))))
    assert await store.get(digest) == data


async def test_a_changed_object_is_not_handed_out(tmp_path: Path) -> None:
    store = LocalObjects(tmp_path)
    digest = await store.put(b"as it was")
    (path,) = (found for found in tmp_path.rglob("*") if found.is_file())
    path.write_bytes(b"as it is!")
    with pytest.raises(CorruptObject):
        await store.get(digest)


async def test_a_put_that_cannot_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = LocalObjects(tmp_path)

    def full(_descriptor: int) -> None:
        raise OSError(28, "no space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="no space"):
            await store.put(b"some bytes")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


async def test_bytes_are_synced_then_named_then_the_folders_are_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The order that a power cut cannot break. What was there already may have no more than its name."""
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
    digest = await store.put(b"some bytes")
    folders = [tmp_path / "sha256" / digest[:2], tmp_path / "sha256"]
    assert steps == ["bytes", "name", *folders]
    steps.clear()
    await store.put(b"some bytes")
    assert steps == folders


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
    found = [path for path in tmp_path.rglob("*") if path.is_file() and not path.name.startswith(".")]
    assert found
    for path in found:
        assert hashlib.sha256(path.read_bytes()).hexdigest() == path.parent.name + path.name
