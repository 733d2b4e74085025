"""The file of a SQLite database: held by one process, noticed when it is gone, and not opened when a part of it is missing.

Beside the database lies `<path>.lock`. The process that has the database open holds a lock on it, which the kernel releases
however the process ends. It writes in it who it is, and `open` while there is a write-ahead log; SQLite removes that log at
a clean end. So a file that says `open` beside a database without its log tells that somebody has removed the log, and
with it changes that were acknowledged.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from blobhub_server.start import StartError

_OPEN = "open"


class DatabaseInUse(StartError):
    """Another server or migration has the same SQLite database open."""


class LogMissing(StartError):
    """The database was not closed, and its write-ahead log is gone."""


class SqliteFile:
    """A database file that this process holds. Symbolic links are followed, so that every path to a file is one."""

    def __init__(self, path: Path) -> None:
        """Hold the file, which need not be there yet. Raises DatabaseInUse, LogMissing, OSError."""
        self.path = path.resolve()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._marker = os.open(f"{self.path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._log = Path(f"{self.path}-wal")
        self._identity: tuple[int, int] | None = None
        self._marked = False
        try:
            self._hold()
            self._require_log()
        except BaseException:
            os.close(self._marker)
            raise
        self._mark("")

    def opened(self) -> None:
        """Note which file was opened."""
        self._identity = _identity(self.path)

    def closing(self) -> None:
        """Note that the log may be removed from here on."""
        self._mark("")

    def release(self) -> None:
        """Let others have the file."""
        os.close(self._marker)

    def is_there(self) -> bool:
        """Whether the path still leads to the file that was opened. It does not after somebody has moved or removed it.

        To be asked before each change, because the first one makes the log of a new database.
        """
        if not self._marked and self._log.exists():
            self._mark(_OPEN)
            self._marked = True
        return _identity(self.path) == self._identity

    def _hold(self) -> None:
        try:
            fcntl.flock(self._marker, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = self._read().partition("\n")[0] or "unknown"
            raise DatabaseInUse(
                f"another process (pid {holder}), a server or a migration, has the database {self.path} open; "
                "end it, or wait for it"
            ) from None

    def _require_log(self) -> None:
        unclean = _OPEN in self._read().splitlines()
        if unclean and self.path.exists() and not self._log.exists():
            raise LogMissing(
                f"the database {self.path} was not closed, and {self._log.name} beside it is gone: changes that were "
                "acknowledged may be in it alone. Bring it back; or remove "
                f"{self.path.name}.lock if they may be lost, another program has closed it since, or it was restored"
            )

    def _read(self) -> str:
        return os.pread(self._marker, 64, 0).decode(errors="replace")

    def _mark(self, state: str) -> None:
        os.ftruncate(self._marker, 0)
        os.pwrite(self._marker, f"{os.getpid()}\n{state}\n".encode(), 0)


def _identity(path: Path) -> tuple[int, int] | None:
    """What tells a file from any other; None when it is not there."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
