"""Work on local files: in threads, with errors that say what it means, and locks between processes."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from blobhub_server.errors import StorageFull, StorageUnavailable

Value = TypeVar("Value")

_FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def storage_errors() -> Iterator[None]:
    """Raise StorageFull or StorageUnavailable in place of an OSError."""
    try:
        yield
    except OSError as error:
        raise StorageFull if error.errno in _FULL else StorageUnavailable from error


async def in_thread(work: Callable[[], Value]) -> Value:
    """Do work on files in a thread. Raises StorageFull or StorageUnavailable in place of an OSError."""
    with storage_errors():
        return await asyncio.to_thread(work)


@contextmanager
def locked(folder: Path, how: int) -> Iterator[None]:
    """Hold a lock on a folder, as `flock` has it. The folder itself is locked, so no file is left behind.

    Raises BlockingIOError with LOCK_NB where others hold it. NFS locks no folder exclusively; that raises OSError.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, how)
        yield
    finally:
        os.close(descriptor)
