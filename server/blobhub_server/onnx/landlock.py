"""Landlock: a thread gives up what it may do with files and other processes, for ever and without privileges.

See https://docs.kernel.org/userspace-api/landlock.html. Linux has it since 5.13, unless it is turned off. Python has no
function for it, so the system calls are made by their numbers, which are the same on all processors but the Alpha.
"""

from __future__ import annotations

import ctypes
import os
import sys

_CREATE_RULESET, _RESTRICT_SELF, _NO_NEW_PRIVS = 444, 446, 38
_ASK_FOR_VERSION = 1
_FILE_RIGHTS = ((1, 13), (2, 14), (3, 15), (5, 16))
"""From which version on there are how many rights to files, one bit each."""


class _Ruleset(ctypes.Structure):
    """`struct landlock_ruleset_attr`: which rights are given up, as bits. Without rules, everywhere."""

    _fields_ = (("files", ctypes.c_uint64), ("network", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


def version() -> int:
    """Which version of Landlock the kernel has; 0 for none."""
    if sys.platform != "linux":
        return 0
    found = ctypes.CDLL(None).syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(_ASK_FOR_VERSION))
    return max(0, int(found))


def give_up_files() -> bool:
    """Let this thread, and those that it starts, open, make, change or remove no file any more, use no TCP port and signal
    no other process, as far as the kernel has that; whether it has any of it. What is open stays.
    """
    known = version()
    if not known:
        return False
    bits = max(count for since, count in _FILE_RIGHTS if since <= known)
    ruleset, size = _Ruleset(files=(1 << bits) - 1), 8
    if known >= 4:
        ruleset.network, size = 0b11, 16  # bind and connect
    if known >= 6:
        ruleset.scoped, size = 0b11, 24  # abstract sockets and signals
    system = ctypes.CDLL(None)
    descriptor = system.syscall(_CREATE_RULESET, ctypes.byref(ruleset), ctypes.c_size_t(size), ctypes.c_uint32(0))
    if descriptor < 0:
        return False
    try:
        if system.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0):
            return False
        return not system.syscall(_RESTRICT_SELF, descriptor, ctypes.c_uint32(0))
    finally:
        os.close(descriptor)
