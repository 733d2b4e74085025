"""What the process may take, and that it opens nothing after it has read the model."""

from __future__ import annotations

import math
import resource
import signal

from blobhub_server.onnx.processing.limits import ProcessingLimits


def limit_resources(limits: ProcessingLimits) -> None:
    """Limit memory, time and files of this process, before it has read anything. Its answer goes into a pipe, not a file."""
    for which, most in (
        (resource.RLIMIT_AS, limits.max_memory_bytes),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, 64),
    ):
        resource.setrlimit(which, (most, most))
    # At the hard limit it would be killed as anybody may kill it; at the soft one the signal says what for.
    resource.setrlimit(resource.RLIMIT_CPU, (limits.max_cpu_seconds, limits.max_cpu_seconds + 1))
    # A server that was killed ends nobody, so the process has a clock of its own. Its signal ends native code, too.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, math.ceil(limits.max_wall_seconds))


def open_nothing_more() -> None:
    """Let nothing be opened any more, neither files nor sockets, by no library and no native code; what is open stays.

    A model that leads onnx or onnxruntime to a path gets an error of the kernel, on any Unix and without privileges.
    """
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))
