"""Show that the tests are green on a busy machine: run them several times in a row with busy loops beside them.

`python tools/steady.py [--runs 5] [--busy 4] [--scale 0.1]`
prints the last line of each run, and exits with 1 when one of them was not green.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUSY = "while True: pass"


@contextmanager
def busy_loops(count: int) -> Iterator[None]:
    """Keep so many processes busy."""
    loops = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(count)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def run_tests(scale: str, log: Path) -> tuple[bool, str]:
    """Run the tests once, with what they print going to a file; whether they were green, and their last line."""
    with log.open("w") as out:
        done = subprocess.run(
            ["make", "test", f"SCALE={scale}"], cwd=ROOT, stdout=out, stderr=subprocess.STDOUT, check=False
        )
    lines = [line for line in log.read_text().splitlines() if line.strip() and not line.startswith("make")]
    return done.returncode == 0, lines[-1] if lines else "nothing was printed"


def main() -> int:
    """Run as the arguments say; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--busy", type=int, default=4)
    parser.add_argument("--scale", default="0.1")
    options = parser.parse_args()
    logs = ROOT / ".build" / "steady"
    logs.mkdir(parents=True, exist_ok=True)
    green = 0
    with busy_loops(options.busy):
        for number in range(1, options.runs + 1):
            start = time.monotonic()
            passed, line = run_tests(options.scale, logs / f"{number}.log")
            green += passed
            load = os.getloadavg()[0]
            print(f"run {number}: {line} ({time.monotonic() - start:.0f} s, load {load:.1f})", flush=True)
    print(f"{green} of {options.runs} runs green, {options.busy} busy loops beside them on {os.cpu_count()} cores")
    return 0 if green == options.runs else 1


if __name__ == "__main__":
    sys.exit(main())
