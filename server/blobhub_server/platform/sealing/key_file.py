"""The file of master keys: one key a line, in base64, the current one first, readable by the server alone."""

from __future__ import annotations

import base64
import binascii
import fcntl
import os
import re
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from blobhub_server.start import StartError

KEY_BYTES = 32


class BadMasterKey(StartError):
    """The master keys cannot be read, or must not be trusted."""


def parse(text: str, source: str) -> list[bytes]:
    """The keys in a text, separated by commas or white space. Raises BadMasterKey, which names the source and no key."""
    keys = [_key(word) for word in re.split(r"[\s,]+", text) if word]
    if not keys:
        raise BadMasterKey(f"{source} holds no master key")
    for number, key in enumerate(keys, 1):
        if key is None:
            raise BadMasterKey(
                f"{source}: key {number} is not {KEY_BYTES} bytes in base64; `openssl rand -base64 32` makes one"
            )
    return [key for key in keys if key is not None]


def _key(word: str) -> bytes | None:
    try:
        key = base64.b64decode(word, validate=True)
    except (binascii.Error, ValueError):
        return None
    return key if len(key) == KEY_BYTES else None


class KeyFile:
    """The key file at a path; a link is followed."""

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()

    def read(self) -> list[bytes] | None:
        """The keys; None when there is no file. Raises BadMasterKey, also for a file that others could read."""
        with _translate_errors(self.path, "read"):
            if not self.path.exists():
                return None
            with self.path.open("rb") as file:
                mode = os.fstat(file.fileno()).st_mode
                text = file.read().decode(errors="replace")
        if mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise BadMasterKey(f"the master key file {self.path} is open to others; chmod 600 it, and consider a new key")
        return parse(text, str(self.path))

    def create(self, key: bytes) -> list[bytes]:
        """Make the file with one key, unless another server has just made it; return the keys in it."""
        with _translate_errors(self.path, "made"):
            self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.lock():
            there = self.read()
            if there is not None:
                return there
            self.replace([key])
            return [key]

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Lock the file while it is read and then replaced, against other processes on this machine."""
        with _folder(self.path) as folder:
            fcntl.flock(folder, fcntl.LOCK_EX)
            yield

    def replace(self, keys: Sequence[bytes]) -> None:
        """Replace the keys in the file, atomically; the new file is on disk when this returns."""
        part = self.path.with_name(f"{self.path.name}.new")
        with _translate_errors(self.path, "written"):
            part.unlink(missing_ok=True)
            descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with open(descriptor, "wb") as file:
                file.writelines(base64.b64encode(key) + b"\n" for key in keys)
                file.flush()
                os.fsync(file.fileno())
            part.replace(self.path)
            with _folder(self.path) as folder:
                os.fsync(folder)


@contextmanager
def _folder(path: Path) -> Iterator[int]:
    descriptor = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _translate_errors(path: Path, what: str) -> Iterator[None]:
    """Raise BadMasterKey in place of an OSError."""
    try:
        yield
    except OSError as error:
        raise BadMasterKey(f"the master key file {path} cannot be {what}: {error.strerror}") from None
