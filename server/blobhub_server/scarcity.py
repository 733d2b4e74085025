"""What the system has none left of: processes, threads, memory, file descriptors. It says nothing of what needs them."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar
from weakref import WeakSet

from blobhub_server.errors import Overloaded

Given = ParamSpec("Given")
Result = TypeVar("Result")

_Work = tuple[Future[Any], Callable[..., Any], tuple[Any, ...], dict[str, Any]]
"""Where the result goes, and what is called with what."""

_SCARCE = (errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE)
_NO_THREAD = "can't start new thread"
"""What CPython says then; the error has no type or number of its own."""


def is_scarcity(error: BaseException) -> bool:
    """Whether an error means that the system has no process, thread, memory or file descriptor to give."""
    if isinstance(error, OSError):
        return error.errno in _SCARCE
    return isinstance(error, RuntimeError) and str(error) == _NO_THREAD


@contextmanager
def scarcity_errors() -> Iterator[None]:
    """Raise Overloaded in place of such an error."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        if is_scarcity(error):
            raise Overloaded from error
        raise


class Threads(ThreadPoolExecutor):
    """Threads to work in. Where the system has no further one to give, work waits for those that there are.

    `ThreadPoolExecutor.submit` raises then, and has queued the work all the same: it is done when a thread is free, and
    nobody hears of it.
    """

    _has_begun = False
    """Whether there is a thread. None ends before all do."""

    def submit(self, fn: Callable[Given, Result], /, *args: Given.args, **kwargs: Given.kwargs) -> Future[Result]:
        """Have something done. Raises Overloaded where there is no thread at all; it is not done then."""
        future: Future[Result] = Future()
        try:
            super().submit(self._work, [(future, fn, args, kwargs)])
        except RuntimeError as error:
            if not is_scarcity(error):
                raise
            if not self._has_begun and future.cancel():
                raise Overloaded from error
        return future

    def _work(self, given: list[_Work]) -> None:
        """Do the work in the list, which is taken out: the traceback of an error leads to whoever has it, a cycle."""
        self._has_begun = True
        future, fn, args, kwargs = given.pop()
        if not future.set_running_or_notify_cancel():
            return
        try:
            result = fn(*args, **kwargs)
        except BaseException as error:
            future.set_exception(error)
        else:
            future.set_result(result)
        finally:
            del future, fn, args, kwargs  # It leads here, too.


_with_threads: WeakSet[asyncio.AbstractEventLoop] = WeakSet()


def work_in_threads() -> None:
    """Have what the running event loop does in threads (`asyncio.to_thread`) done in such ones."""
    loop = asyncio.get_running_loop()
    if loop not in _with_threads:
        _with_threads.add(loop)
        loop.set_default_executor(Threads(thread_name_prefix="asyncio"))
