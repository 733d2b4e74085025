"""What a process cannot be started for that says nothing of what it is started for."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from blobhub_server.errors import Overloaded

_SCARCE = (errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE)


@contextmanager
def scarcity_errors() -> Iterator[None]:
    """Raise Overloaded in place of the errors of a system without a process, memory or a file descriptor to give."""
    try:
        yield
    except OSError as error:
        if error.errno in _SCARCE:
            raise Overloaded from error
        raise
