"""A shell script in Python's place, for the server to begin where it begins processes of its own."""

from __future__ import annotations

import sys
from pathlib import Path

import psutil
import pytest


def behave(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Have processes run a script, whatever they are begun for."""
    program = folder / "program"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))


def linger(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Have processes start one more, and wait for that. What is returned has the ids of both, once they run."""
    pids = folder / "pids"
    behave(folder, monkeypatch, f"sleep 600 & echo $! $$ >{pids}.new; mv {pids}.new {pids}; wait")
    return pids


def any_runs(pids: Path) -> bool:
    """Whether any process runs whose id is in a file. One that has ended and nobody has waited for does not."""
    return any(_runs(int(pid)) for pid in pids.read_text().split())


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.NoSuchProcess:
        return False
