"""Objects as local files: `<root>/sha256/ab/cdef…`.

A file appears under its name only when it is whole and on disk: it is written beside, synced, renamed, and the folder
is synced too. So a crash at any point leaves either no object or all of it.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import secrets
from pathlib import Path

from blobhub_server.objects.contract import CorruptObject, ObjectNotFound

_DIGEST = re.compile(r"[0-9a-f]{64}")


class LocalObjects:
    """An object store in a folder."""

    def __init__(self, root: Path) -> None:
        self._root = root / "sha256"
        self._root.mkdir(parents=True, exist_ok=True)

    async def put(self, data: bytes) -> str:
        """See ObjectStore."""
        return await asyncio.to_thread(self._put, data)

    async def get(self, digest: str) -> bytes:
        """See ObjectStore."""
        return await asyncio.to_thread(self._get, digest)

    async def exists(self, digest: str) -> bool:
        """See ObjectStore."""
        return await asyncio.to_thread(self._exists, digest)

    async def probe(self) -> None:
        """See ObjectStore."""
        await asyncio.to_thread(self._probe)

    def _path(self, digest: str) -> Path:
        """Where an object is. What is not a digest never becomes a path."""
        if not _DIGEST.fullmatch(digest):
            raise ObjectNotFound
        return self._root / digest[:2] / digest[2:]

    def _put(self, data: bytes) -> str:
        digest = hashlib.sha256(data).hexdigest()
        path = self._path(digest)
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            _write(path, data)
        # Also for an object that is there: whoever wrote it may not have come this far yet.
        _sync_folder(path.parent)
        _sync_folder(self._root)
        return digest

    def _exists(self, digest: str) -> bool:
        return _DIGEST.fullmatch(digest) is not None and self._path(digest).exists()

    def _get(self, digest: str) -> bytes:
        try:
            data = self._path(digest).read_bytes()
        except FileNotFoundError:
            raise ObjectNotFound from None
        if hashlib.sha256(data).hexdigest() != digest:
            raise CorruptObject
        return data

    def _probe(self) -> None:
        path, data = self._root / f".probe-{secrets.token_hex(8)}", secrets.token_bytes(4096)
        try:
            _write(path, data)
            _sync_folder(self._root)
            if path.read_bytes() != data:
                raise CorruptObject
        finally:
            path.unlink(missing_ok=True)


def _write(path: Path, data: bytes) -> None:
    """Make a file appear under its name, whole and synced."""
    part = path.parent / f".{secrets.token_hex(8)}"
    try:
        with part.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.rename(path)
    finally:
        part.unlink(missing_ok=True)


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
