"""A model in `model.tar.gz`: exactly one member, unpacked as it arrives."""

from __future__ import annotations

import gzip
import io
import random
import tarfile
import tracemalloc

import pytest
from blobhub_server.onnx.archive import ArchiveReader
from blobhub_server.onnx.refusal import ModelRefused, RefusalReason

MODEL = random.Random(1).randbytes(100_000) + bytes(3_000_000)
ONE = ("model.onnx", MODEL, {})


def archive(*members: tuple[str, bytes, dict[str, object]], form: int = tarfile.PAX_FORMAT) -> bytes:
    """A gzipped tar of members: name, bytes, and what else is told of them."""
    into = io.BytesIO()
    with tarfile.open(fileobj=into, mode="w:gz", format=form) as made:
        for name, data, told in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            for attribute, value in told.items():
                setattr(member, attribute, value)
            made.addfile(member, io.BytesIO(data))
    return into.getvalue()


def unpack(data: bytes, piece: int = 1_000, max_bytes: int = 1 << 30) -> bytes:
    reader = ArchiveReader(max_bytes)
    unpacked = b"".join(part for at in range(0, len(data), piece) for part in reader.feed(data[at : at + piece]))
    reader.close()
    return unpacked


@pytest.mark.parametrize("piece", [1, 7, 1_000, 1 << 30])
@pytest.mark.parametrize(
    "data",
    [
        archive(ONE, form=tarfile.USTAR_FORMAT),
        archive(ONE, form=tarfile.GNU_FORMAT),
        archive(("model.onnx", MODEL, {"mtime": 1.5})),
    ],
    ids=["ustar", "gnu", "pax"],
)
def test_the_model_comes_out_in_whatever_pieces_the_archive_arrives(data: bytes, piece: int) -> None:
    assert unpack(data, piece) == MODEL


HOSTILE = {
    "nothing": (b"", "truncated"),
    "no gzip": (b"PK\3\4" + MODEL, "not compressed by gzip"),
    "no tar": (gzip.compress(b"no tar" * 1000), "no tar archive"),
    "no member": (archive(), "no member"),
    "another name": (archive(("other.onnx", MODEL, {})), "'other.onnx'"),
    "a parent folder": (archive(("../model.onnx", MODEL, {})), "'../model.onnx'"),
    "an absolute path": (archive(("/model.onnx", MODEL, {})), "'/model.onnx'"),
    "a long name": (archive(("x" * 300, MODEL, {}), form=tarfile.GNU_FORMAT), "LongLink"),
    "a name in an extended header": (archive(("model.onnx", MODEL, {"pax_headers": {"path": "../x"}})), "sets 'path'"),
    "a folder": (archive(("model.onnx", b"", {"type": tarfile.DIRTYPE})), "'model.onnx"),
    "a symlink": (archive(("model.onnx", b"", {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"})), "no regular file"),
    "a hardlink": (archive(("model.onnx", b"", {"type": tarfile.LNKTYPE, "linkname": "x"})), "no regular file"),
    "a FIFO": (archive(("model.onnx", b"", {"type": tarfile.FIFOTYPE})), "no regular file"),
    "an empty model": (archive(("model.onnx", b"", {})), "empty"),
    "two members": (archive(ONE, ("more", b"1", {})), "more than the member"),
    "a hundred members": (archive(*(("model.onnx", b"1", {}) for _ in range(100))), "more than the member"),
    "large extended headers": (archive(("model.onnx", b"1", {"pax_headers": {"comment": "x" * 100_000}})), "too large"),
    "bytes after the end": (archive(ONE) + b"x", "after its end"),
    "two archives": (archive(ONE) * 2, "after its end"),
    "a bomb of padding": (gzip.compress(gzip.decompress(archive(ONE)) + bytes(2 << 20)), "come after"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_an_archive_of_anything_else_is_refused_in_words(name: str) -> None:
    data, says = HOSTILE[name]
    with pytest.raises(ModelRefused) as caught:
        unpack(data)
    assert caught.value.refused.reason is RefusalReason.ARCHIVE
    assert says in caught.value.refused.message


def test_a_truncated_archive_is_refused_wherever_it_ends() -> None:
    data = archive(ONE)
    for length in range(0, len(data), 997):
        with pytest.raises(ModelRefused, match="truncated"):
            unpack(data[:length])


def test_a_bomb_is_refused_at_the_size_that_it_declares_and_takes_no_memory() -> None:
    data = archive(("model.onnx", bytes(64 << 20), {}))
    with pytest.raises(ModelRefused) as caught:
        unpack(data, max_bytes=(64 << 20) - 1)
    assert caught.value.refused.reason is RefusalReason.TOO_LARGE
    tracemalloc.start()
    reader = ArchiveReader(1 << 30)
    assert sum(len(part) for part in reader.feed(data)) == 64 << 20
    reader.close()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 20
