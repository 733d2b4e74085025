"""The file of a SQLite database: held by one process, noticed when it is gone, and not opened when a part of it is missing.

Beside the database lies `<path>.lock`. The process that has the database open holds a lock on it, which the kernel releases
however the process ends. It writes in it who it is, and `open` while there is a write-ahead log; SQLite removes that log at
a clean end. So a file that says `open` beside a database without its log tells that somebody has removed the log, and
with it changes that were acknowledged.

The database itself is locked as well, for that file may be removed, and a database that is mounted has two paths which no
link joins. A hard link is refused: SQLite looks for the log beside the name that it is given, and would miss the other's.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from blobhub_server.errors import StorageUnavailable
from blobhub_server.start import StartError

_OPEN = "open"
_MARK_LENGTH = 32
"""How long a mark is, whatever it says."""


class DatabaseInUse(StartError):
    """Another server or migration has the same SQLite database open."""


class LogMissing(StartError):
    """The database was not closed, and its write-ahead log is gone."""


class SeveralNames(StartError):
    """The database has hard links, and its write-ahead log lies beside one of them."""


class FileMoved(Exception):
    """The database, or its write-ahead log, is not where it was opened."""


class SqliteFile:
    """A database file that this process holds. Symbolic links are followed, so that every path to a file is one."""

    def __init__(self, path: Path) -> None:
        """Hold the file, which need not be there yet. Raises DatabaseInUse, LogMissing, SeveralNames, OSError."""
        self.path = path.resolve()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._log = Path(f"{self.path}-wal")
        self._log_identity: tuple[int, int] | None = None
        self._marked = False
        self._closing = False
        self._marker = _open(Path(f"{self.path}.lock"))
        self._held = [self._marker]
        try:
            self._hold(self._marker)
            self._marked = self._require_log()
            # Closed after SQLite has closed the file: to close it takes all locks away that this process has on it.
            self._held.append(_open(self.path))
            self._hold(self._held[-1])
            self._identity = _identity(self.path)
            self._require_one_name()
        except BaseException:
            self.release()
            raise
        # A log that an unclean end has left holds changes until SQLite is closed, so the mark stays with it.
        self._mark(_OPEN if self._marked else "")

    def begun(self) -> None:
        """Note that a change has begun, with which a log is there. Raises StorageUnavailable."""
        if not self._marked:  # The very first one: before it began there was no log yet.
            self.is_there()

    def closing(self) -> None:
        """Note that there are no more changes, and that SQLite may remove the log from here on."""
        self._closing = _identity(self._log) is not None

    def closed(self) -> None:
        """Note that SQLite has let go of the database: a log that it has removed is all in there."""
        if self._closing and not self._log.exists():
            self._mark("")

    def release(self) -> None:
        """Let others have the file."""
        for descriptor in reversed(self._held):
            os.close(descriptor)

    def is_there(self) -> bool:
        """Whether the paths still lead to the database that was opened and to its log. They do not after a move or removal.

        To be asked before each change, because the first one makes the log of a new database. Raises StorageUnavailable.
        """
        try:
            return _identity(self.path) == self._identity and self._log_is_there()
        except OSError as error:
            raise StorageUnavailable from error

    def log_saved(self) -> None:
        """Note that all that is in the log is in the database, too: a log that is gone is missed by nobody."""
        self._mark("")
        self._marked = False

    def _log_is_there(self) -> bool:
        """Whether the log is the one that the first change has made, or there is none yet."""
        found = _identity(self._log)
        self._log_identity = self._log_identity or found
        if found is not None and found == self._log_identity and not self._marked:
            self._mark(_OPEN)
            os.fdatasync(self._marker)  # or it would be gone after a power cut, which the log itself outlasts
            self._marked = True
        return found == self._log_identity

    def _require_one_name(self) -> None:
        names = self.path.stat().st_nlink
        if names > 1:
            raise SeveralNames(
                f"the database {self.path} has {names} names (hard links), and its log lies beside one of them; "
                "remove the others"
            )

    def _hold(self, descriptor: int) -> None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = self._read().partition("\n")[0] if descriptor == self._marker else ""
            raise DatabaseInUse(
                f"another process (pid {holder or 'unknown'}), a server or a migration, has the database {self.path} open; "
                "end it, or wait for it"
            ) from None

    def _require_log(self) -> bool:
        """Whether there is a log of an unclean end. Raises LogMissing where there should be one."""
        unclean = _OPEN in self._read().splitlines() and self.path.exists()
        if unclean and not self._log.exists():
            raise LogMissing(
                f"the database {self.path} was not closed, and {self._log.name} beside it is gone: changes that were "
                "acknowledged may be in it alone. Bring it back; or remove "
                f"{self.path.name}.lock if they may be lost, another program has closed it since, or it was restored"
            )
        return unclean

    def _read(self) -> str:
        return os.pread(self._marker, 64, 0).decode(errors="replace")

    def _mark(self, state: str) -> None:
        # In the bytes that are there: on a full disk a file that was cut could not be written again, and said nothing.
        os.pwrite(self._marker, f"{os.getpid()}\n{state}\n".ljust(_MARK_LENGTH).encode(), 0)


def _open(path: Path) -> int:
    """A descriptor of a file, which is made where there is none."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _identity(path: Path) -> tuple[int, int] | None:
    """What tells a file from any other; None when it is not there."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
