"""How long a program waits for what it imports, and a person for the command line: beside a Python that does nothing."""

from __future__ import annotations

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
    nothing = seconds(NOTHING)
    for name, command in COMMANDS.items():
        took = seconds(command)
        row(name, f"{(took - nothing) * 1000:.0f} ms", f"beside {nothing * 1000:.0f} ms of an empty Python")


def seconds(command: list[str]) -> float:
    """The median time of a command, from its start to its end."""
    subprocess.run(command, check=True, capture_output=True)
    took = []
    for _ in range(TRIES):
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        took.append(time.perf_counter() - start)
    return statistics.median(took)
