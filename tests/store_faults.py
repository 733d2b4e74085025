"""Object stores whose steps fail as they are told to: files that cannot be written, requests that are cut."""

from __future__ import annotations

import errno
import itertools
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fake_google
import pytest
from blobhub_server.db.trouble import Trouble
from blobhub_server.objects import google_bucket, local, local_upload
from blobhub_server.objects.part import Part

MANNERS: dict[str, dict[str, Sequence[str]]] = {
    "local": dict.fromkeys(("write", "sync", "keep", "read", "read part"), ("full", "broken")),
    "google": {
        "list": ("503",),
        "look": ("cut",),
        "read": ("503", "429", "half"),
        "write": ("429", "cut", "lost"),
        "compose": ("503", "lost"),
        "keep": ("cut", "lost"),
    },
}
"""By kind of store what its steps are, and in which ways each fails.

`full` and `broken` are errors of a disk; `cut` is a connection that ends before anything is done, `lost` when it is done,
`half` within the answer; numbers are statuses of HTTP.
"""

_ERRORS = {"full": errno.ENOSPC, "broken": errno.EIO}


def told_of(manner: str) -> tuple[str, str]:
    """The status code and the reason that a call gets."""
    return ("RESOURCE_EXHAUSTED", "STORAGE_FULL") if manner == "full" else ("UNAVAILABLE", "STORAGE_UNAVAILABLE")


class Faults:
    """Which steps fail, and how. `met` counts what came to be, and `reported` is what servers have noted as trouble."""

    def __init__(self) -> None:
        self.met: Counter[tuple[str, str]] = Counter()
        self.reported: list[BaseException] = []
        self._plans: dict[str, Iterator[str]] = {}
        self._lock = threading.Lock()

    def plan(self, plan: Mapping[str, Sequence[str]]) -> None:
        """Have each of these steps fail once in each of its ways, and then no more."""
        self._plans = {step: iter(manners) for step, manners in plan.items()}

    @contextmanager
    def failing(self, step: str, manner: str, after: int = 0) -> Iterator[None]:
        """Have a step fail until the block is left, each time but the first ones."""
        self.met.clear()
        self.reported.clear()
        self._plans = {step: itertools.chain([""] * after, itertools.repeat(manner))}
        try:
            yield
        finally:
            self._plans = {}

    def next(self, step: str) -> str:
        """How a step fails now; empty if it does not."""
        with self._lock:
            manner = next(self._plans.get(step, iter(())), "")
            if manner:
                self.met[step, manner] += 1
            return manner


def faults_of(kind: str, monkeypatch: pytest.MonkeyPatch) -> Faults:
    """The faults of all stores of a kind in this process. Nothing else tries them meanwhile: no probe, and no retry."""
    faults = Faults()
    monkeypatch.setattr(Trouble, "report", lambda _trouble, error: faults.reported.append(error))
    if kind == "google":
        monkeypatch.setattr(google_bucket, "_RETRY", None)
        monkeypatch.setattr(
            fake_google.Proxy, "fault", staticmethod(lambda method, path: faults.next(step_of(method, path)))
        )
        return faults
    for step, owner, name in (
        ("write", Part, "write"),
        ("sync", os, "fsync"),
        ("keep", Path, "rename"),
        ("read", local, "_block"),
        ("read part", local_upload, "_read"),
    ):
        monkeypatch.setattr(owner, name, _failing(faults, step, getattr(owner, name)))
    return faults


def _failing(faults: Faults, step: str, work: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **fields: Any) -> Any:
        manner = faults.next(step)
        if manner:
            raise OSError(_ERRORS[manner], os.strerror(_ERRORS[manner]))
        return work(*args, **fields)

    return call


def step_of(method: str, path: str) -> str:
    """Which step of a store a request to Google is."""
    for step, methods, part in (
        ("part", ("PUT",), "X-Goog-Signature="),
        ("compose", ("POST",), "/compose?"),
        ("keep", ("POST",), "/rewriteTo/"),
        ("write", ("POST", "PUT"), "/upload/"),
        ("read", ("GET",), "alt=media"),
        ("list", ("GET",), "/o?"),
        ("look", ("GET",), "/o/"),
        ("delete", ("DELETE",), "/o/"),
    ):
        if method in methods and part in path:
            return step
    return f"{method} {path}"
