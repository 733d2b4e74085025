"""How long the callbacks of an event loop take of their thread's CPU, and how much memory a server has taken.

A server is metered in its own process, on asyncio's own loop: uvloop runs its callbacks where nobody can see them. What
is run is the same. Pauses of the garbage collector are told by themselves: they come when they come, and are nobody's.
What a first call imports or compiles is not measured by who warms the server up and then resets the meter.
"""

from __future__ import annotations

import asyncio
import gc
import json
import socket
import sys
import threading
import time
from asyncio import events
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

from served import ServerProcess

BOUND_MS = 20.0
"""What one callback may take of its thread's CPU, whatever comes in (DESIGN §8.2)."""

LOOPS = 500_000
LOOP_SECONDS = 50e-9
"""What an addition in a loop takes of the CPU. A busy or throttled machine was seen to take 150e-9."""

TRIES = 3
"""How often the same is measured: a busy machine shares its caches and cores, so that one reading may be too high."""

KEPT = 200
WORTH_KEEPING_MS = 2.0
SAMPLE_SECONDS = 0.004
SAMPLED_FROM_SECONDS = 0.008
MAX_SAMPLES = 1_000
FRAMES = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Callback:
    """A callback that has run: CPU of its thread without the collector's, when by `time.monotonic`, and where it was."""

    name: str
    cpu_ms: float
    begin_time: float
    end_time: float
    stack: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return "\n  ".join([f"{self.cpu_ms:.1f} ms of {self.name}", *self.stack])


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What a meter has seen since it was reset: how many callbacks, the worst of them first, and pauses of the collector."""

    count: int
    worst: list[Callback]
    collector_ms: float

    @property
    def worst_ms(self) -> float:
        return self.worst[0].cpu_ms if self.worst else 0.0

    def beyond(self, bound_ms: float = BOUND_MS) -> list[Callback]:
        """The callbacks that took more, the worst first."""
        return [callback for callback in self.worst if callback.cpu_ms > bound_ms]


def slowness() -> float:
    """How many times as long this machine takes now as the one that the bound is for; 1 at least.

    CPU time is not the same everywhere and always: whoever runs on the other half of a core or shares its caches, and a host
    that throttles, make each instruction take longer, and a thread's clock goes on meanwhile. So the same work is timed
    here in the same moment.
    """
    begun, total = time.thread_time(), 0
    for number in range(LOOPS):
        total += number
    return max(1.0, (time.thread_time() - begun) / (LOOPS * LOOP_SECONDS))


async def hold_the_bound(measure: Callable[[], Awaitable[Reading]], tries: int = TRIES) -> Reading:
    """Measure until no callback is beyond the bound, and return that reading; fail when none of the tries is.

    The bound is `BOUND_MS`, on a machine that is slow now times its `slowness`. What cannot be done twice is done by
    `measure` on fresh data each time.
    """
    for _ in range(tries):
        slow = slowness()
        reading = await measure()
        if not reading.beyond(BOUND_MS * max(slow, slowness())):
            return reading
    raise AssertionError("\n".join(["beyond the bound at each try, at the last by", *map(str, reading.beyond())]))


class Meter:
    """Measures every callback of the loop in the thread that installs it."""

    def __init__(self) -> None:
        self._thread = threading.get_ident()
        self._running: tuple[int, float] | None = None
        self._sampled = 0
        self._samples: list[list[str]] = []
        self._number = 0
        self._collecting = 0.0
        self._collected = 0.0
        self.reset()

    def reset(self) -> None:
        """Forget what was measured."""
        self._seen: list[Callback] = []
        self._collector_ms = 0.0
        self._from = self._number

    def read(self) -> Reading:
        """What was measured."""
        worst = sorted(self._seen, key=lambda callback: -callback.cpu_ms)[:KEPT]
        return Reading(count=self._number - self._from, worst=worst, collector_ms=self._collector_ms)

    @contextmanager
    def installed(self) -> Iterator[Meter]:
        """Measure; in a test whose server is in its own process, the test's callbacks as well."""
        original = events.Handle._run
        meter = self

        def run(handle: Any) -> None:
            if threading.get_ident() == meter._thread:
                meter._measure(handle._callback, partial(original, handle))
            else:
                original(handle)

        ended = threading.Event()
        threading.Thread(target=self._watch, args=(ended,), daemon=True).start()
        gc.callbacks.append(self._collect)
        events.Handle._run = run  # type: ignore[method-assign]
        try:
            yield self
        finally:
            events.Handle._run = original  # type: ignore[method-assign]
            gc.callbacks.remove(self._collect)
            ended.set()

    def _measure(self, callback: Any, run: Callable[[], None]) -> None:
        self._number += 1
        self._running = (self._number, time.monotonic())
        collected, begun = self._collected, time.thread_time()
        run()
        spent = time.thread_time() - begun - (self._collected - collected)
        (number, begin_time), self._running = self._running, None
        if spent * 1000 < WORTH_KEEPING_MS:
            return
        stack = most_common(self._samples) if self._sampled == number and self._samples else []
        name, end_time = name_of(callback), time.monotonic()
        self._seen.append(Callback(name=name, cpu_ms=spent * 1000, begin_time=begin_time, end_time=end_time, stack=stack))
        if len(self._seen) > 10 * KEPT:
            self._seen = self.read().worst

    def _collect(self, phase: str, _info: object) -> None:
        if threading.get_ident() != self._thread:
            return
        if phase == "start":
            self._collecting = time.thread_time()
            return
        spent = time.thread_time() - self._collecting
        self._collected += spent
        self._collector_ms = max(self._collector_ms, spent * 1000)

    def _watch(self, ended: threading.Event) -> None:
        """Note where a callback is that runs long: a task's name says little once it has gone on."""
        while not ended.wait(SAMPLE_SECONDS):
            running = self._running
            if running is None or time.monotonic() - running[1] < SAMPLED_FROM_SECONDS:
                continue
            if self._sampled != running[0]:
                self._sampled, self._samples = running[0], []
            if len(self._samples) < MAX_SAMPLES:
                self._samples.append(place_of(sys._current_frames()[self._thread]))


def name_of(callback: Any) -> str:
    """A callback's name; a task's step is named for its coroutine."""
    while isinstance(callback, partial):
        callback = callback.func
    task = getattr(callback, "__self__", None)
    if isinstance(task, asyncio.Task):
        return f"task {getattr(task.get_coro(), '__qualname__', task.get_coro())}"
    return str(getattr(callback, "__qualname__", callback))


def place_of(frame: FrameType | None) -> list[str]:
    """Where a thread is, the innermost first. No source is read: the callback that is looked at goes on meanwhile."""
    found = []
    while frame and len(found) < FRAMES:
        code = frame.f_code
        found.append(f"{'/'.join(Path(code.co_filename).parts[-3:])}:{frame.f_lineno} {code.co_qualname}")
        frame = frame.f_back
    return found


def most_common(stacks: Sequence[list[str]]) -> list[str]:
    """One of the stacks that end in the function that most of them end in."""
    ends = Counter(stack[0].rpartition(" ")[2] for stack in stacks)
    end = ends.most_common(1)[0][0]
    return next(stack for stack in stacks if stack[0].endswith(end))


def _name_of_socket(pid: int) -> str:
    """An abstract socket, which leaves no file."""
    return f"\0blobhub-meter-{pid}"


def answer_questions(meter: Meter, pid: int) -> None:
    """Answer whoever asks for the meter of this process, in a thread of its own."""
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(_name_of_socket(pid))
    listening.listen()

    def answer() -> None:
        while True:
            with listening.accept()[0] as asking:
                asked = asking.recv(16)
                reading = meter.read()
                if asked == b"reset":
                    meter.reset()
                asking.sendall(json.dumps(asdict(reading)).encode())

    threading.Thread(target=answer, daemon=True).start()


class MeteredServer(ServerProcess):
    """`blobhub-server serve` in a process of its own, metered."""

    def __init__(self, data_dir: Path, database_url: str | None = None, **settings: Any) -> None:
        command = [str(Path(__file__).with_name("metered_server.py")), "serve"]
        super().__init__(data_dir, database_url, command=command, fresh=True, **settings)

    def read(self) -> Reading:
        """What the meter has seen since it was reset."""
        return self._ask(b"read")

    def reset(self) -> Reading:
        """The same, and begin anew, memory as well; what comes of a first call is left behind so."""
        reading = self._ask(b"reset")
        Path(f"/proc/{self.pid}/clear_refs").write_text("5", encoding="ascii")
        return reading

    async def measure(self, work: Callable[[], Awaitable[object]]) -> Reading:
        """Reset the meter, do the work, and return what the meter has seen."""
        self.reset()
        await work()
        return self.read()

    @property
    def peak_bytes(self) -> int:
        """The most memory that the server's process has held since it was reset."""
        return self._memory("VmHWM")

    @property
    def memory_bytes(self) -> int:
        """The memory that the server's process holds."""
        return self._memory("VmRSS")

    def _memory(self, name: str) -> int:
        status = Path(f"/proc/{self.pid}/status").read_text(encoding="ascii")
        (line,) = [line for line in status.splitlines() if line.startswith(f"{name}:")]
        return int(line.split()[1]) << 10

    def _ask(self, what: bytes) -> Reading:
        with socket.socket(socket.AF_UNIX) as asking:
            asking.connect(_name_of_socket(self.pid))
            asking.sendall(what)
            told = json.loads(b"".join(iter(lambda: asking.recv(1 << 16), b"")))
        return Reading(**told | {"worst": [Callback(**callback) for callback in told["worst"]]})
