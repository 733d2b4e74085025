"""What a process may take in which native code reads a stranger's model, and that it opens nothing after it has begun."""

from __future__ import annotations

import math
import os
import resource
import signal
from contextlib import suppress

from blobhub_server.onnx import landlock
from blobhub_server.onnx.runtime import QUIET_ENVIRONMENT

# One thread and one arena each: what libraries reserve for more counts as address space, which is limited. No home, so that
# nothing of a user's configuration is read.
ENVIRONMENT = QUIET_ENVIRONMENT | {
    "LC_ALL": "C.UTF-8",
    "MALLOC_ARENA_MAX": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}
"""All that such a process has of an environment."""

_MOST_KILLABLE = "1000"
_MEMORY_WORDS = (b"bad_alloc", b"MemoryError", b"Cannot allocate memory", b"failed to map segment")


def limit_resources(max_memory_bytes: int) -> None:
    """Limit memory and files of this process, before it has read anything. It answers into a pipe or socket, not a file."""
    for which, most in (
        (resource.RLIMIT_AS, max_memory_bytes),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, 64),
    ):
        resource.setrlimit(which, (most, most))


def let_others_go_first() -> None:
    """Where the processor or the memory is short, the server does not suffer for its models."""
    os.nice(5)
    with suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
        file.write(_MOST_KILLABLE)


def limit_processor_time(max_seconds: int) -> None:
    """End this process after so much processor time."""
    # At the hard limit it would be killed as anybody may kill it; at the soft one the signal says what for.
    resource.setrlimit(resource.RLIMIT_CPU, (max_seconds, max_seconds + 1))


def limit_time(max_seconds: float) -> None:
    """End this process after so many seconds; 0 lifts the limit.

    A server that was killed ends nobody, so the process has a clock of its own. Its signal ends native code, too.
    """
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, math.ceil(max_seconds))


def open_nothing_more() -> None:
    """Let nothing be opened any more, neither files nor sockets, by no library and no native code; what is open stays.

    A model that leads onnx or onnxruntime to a path gets an error of the kernel, on any Unix and without privileges. Where
    the kernel has Landlock, names of files cannot be made, changed or removed either.
    """
    landlock.give_up_files()
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))


def ended_for_memory(said: bytes) -> bool:
    """Whether a process has ended because it got no more memory, by what it has written to its standard error."""
    return any(words in said for words in _MEMORY_WORDS)


def ended_for_time(returncode: int | None) -> bool:
    """Whether a process has ended by one of its own clocks."""
    return returncode in (-signal.SIGXCPU, -signal.SIGALRM)


def describe_end(returncode: int | None) -> str:
    """How a process has ended: `signal 11`, or `status 1`."""
    return f"signal {-returncode}" if returncode is not None and returncode < 0 else f"status {returncode}"
