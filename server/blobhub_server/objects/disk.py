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


async def in_thread(work: Callable[[], Value]) -> Value:
    """Do work on files in a thread. Raises StorageFull or StorageUnavailable in place of an OSError."""
    try:
        return await asyncio.to_thread(work)
    except OSError as error:
        raise StorageFull if error.errno in _FULL else StorageUnavailable from error


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
