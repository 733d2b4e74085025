"""How long a program waits for what it imports, and a person for the command line: beside a Python that does nothing."""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import time

from benchmarks.rows import row
from command_line import SCRIPT

TRIES = 11
NOTHING = [sys.executable, "-c", "pass"]
COMMANDS = {
    "import blobhub_client": [sys.executable, "-c", "import blobhub_client"],
    "blobhub --version": [sys.executable, SCRIPT, "--version"],
    "blobhub blob create --help": [sys.executable, SCRIPT, "blob", "create", "--help"],
}


def main() -> None:
    """Print a row for each; what is compiled is compiled before."""
    nothing, nothing_computed = seconds(NOTHING)
    for name, command in COMMANDS.items():
        took, computed = seconds(command)
        row(name, f"{(took - nothing) * 1000:.0f} ms", f"{(computed - nothing_computed) * 1000:.0f} ms of the processor")
        row("", f"an empty Python: {nothing * 1000:.0f} ms", f"{nothing_computed * 1000:.0f} ms of the processor")


def seconds(command: list[str]) -> tuple[float, float]:
    """The medians of how long a command takes, and of the processor time that it takes."""
    subprocess.run(command, check=True, capture_output=True)
    took, computed = [], []
    for _ in range(TRIES):
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        took.append(time.perf_counter() - start)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        computed.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return statistics.median(took), statistics.median(computed)
