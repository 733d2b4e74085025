"""How late schedules fire: many that are due at once, and one alone, with few and with very many stored.

The lag of a firing is when a watcher on this machine has it, less its nominal time: so it has the commit in it, and the way
to whoever waits for it. Beside it, in the same run, are the server without stored schedules, PostgreSQL, and APScheduler.

In full size it takes about ten minutes on a quiet machine, and gives up waiting after half an hour.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import acme
import flows
import psutil
from benchmarks.rows import full_spread, percentile, row, spread
from blobhub.v1 import blob_pb2, firing_pb2, schedule_pb2
from databases import execute, postgres_in
from many_schedules import copy_schedule
from schedules import ONCE, SCHEDULER, create, firings, stub
from served import Api, ServerProcess, connected

HERE = Path(__file__).resolve().parent
COMMAND = [str(Path(sys.executable).parent / "blobhub-server"), "serve"]
STARTS = 3
LONE, LONE_SECONDS = 100, 0.1
"""How many schedules are due alone, and how far apart."""
CREATED, IN_FLIGHT = 200, 16
READS = 20
QUIET_SECONDS = 3.0
PROBE_SECONDS = 0.01
"""How often GetBlob is called while others work."""
YEAR = timedelta(days=365)
TARGET = {"revision": "acme/pipeline@default", "definition": "workflow"}
LEAST_FIRINGS_A_SECOND = 50
"""With fewer than that the run gives up waiting, so that it ends."""


@dataclass(frozen=True)
class Sizes:
    """How many schedules are due at once, and how many are stored; and the same for APScheduler, which takes fewer."""

    due: int
    stored: int

    @property
    def peer_due(self) -> int:
        return min(self.due, 1_000)

    @property
    def peer_stored(self) -> int:
        return min(self.stored, 100_000)


class Bench:
    """A server, and what is asked of it."""

    def __init__(self, folder: Path, name: str, url: str, sizes: Sizes) -> None:
        self._name = name
        self._url = url
        self._sizes = sizes
        self._server = ServerProcess(folder / "data", url, command=COMMAND, log_level="warning")
        self._key = ""
        self._series = 0
        self._api: Api | None = None

    @property
    def api(self) -> Api:
        assert self._api is not None, "it is served"
        return self._api

    def tell(self, what: str, figure: str, ratio: str = "") -> None:
        row(f"schedules on {self._name}, {what}", figure, ratio)

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[tuple[float, float]]:
        """Start the server several times, and connect; seconds to serving, and megabytes of memory when it has settled."""
        took = []
        for again in range(STARTS):
            begin = time.perf_counter()
            with contextlib.redirect_stdout(io.StringIO()):
                await self._server.start()
            took.append(time.perf_counter() - begin)
            if again < STARTS - 1:
                self._server.stop()
        try:
            await asyncio.sleep(2)
            memory = psutil.Process(self._server.pid).memory_info().rss / 1e6
            self._key = self._server.admin_key or self._key
            async with connected(self._server.address, self._key) as self._api:
                yield statistics.median(took), memory
        finally:
            self._server.stop()

    async def prepare(self) -> None:
        """A workflow that ends at once, and a scheduler for each of what is measured."""
        await self.api.session(flows.steps(1))
        for alias in ("due", "lone", "created", "stored"):
            await acme.blob(self.api, f"acme/{alias}", SCHEDULER)

    async def create(self, blob: str, alias: str, due: datetime) -> schedule_pb2.Schedule:
        times = {"invocation_time": due.replace(tzinfo=None).isoformat(), "timezone": "UTC"}
        spec = ONCE | times | {"invocation_target": TARGET}
        return await create(self.api, alias, spec, revision=f"acme/{blob}@draft")

    async def original(self, blob: str) -> schedule_pb2.Schedule:
        """A schedule to copy."""
        self._series += 1
        return await self.create(blob, f"original-{self._series}", datetime.now(UTC) + 50 * YEAR)

    async def copies(self, original: schedule_pb2.Schedule, count: int, *, step: timedelta = timedelta()) -> None:
        """Put copies of the schedule that was made last into the database, due in a year."""
        due = round((datetime.now(UTC) + YEAR).timestamp() * 1_000_000)
        apart = step // timedelta(microseconds=1)
        await copy_schedule(self._url, original.id, count, first_due=due, step=apart, series=self._series)

    async def creation_rate(self) -> float:
        """Schedules created a second, through the API."""
        self._series += 1
        names = iter(range(CREATED))
        due = datetime.now(UTC) + YEAR

        async def caller() -> None:
            for name in names:
                await self.create("created", f"created-{self._series}-{name}", due)

        begin = time.perf_counter()
        await asyncio.gather(*(caller() for _ in range(IN_FLIGHT)))
        return CREATED / (time.perf_counter() - begin)

    async def lone(self) -> list[float]:
        """The lags of schedules that are due one after the other, in milliseconds."""
        self._series += 1
        watching = asyncio.create_task(self._lags("lone", LONE, await self._seen("lone")))
        begin = datetime.now(UTC) + timedelta(seconds=2)
        for number in range(LONE):
            due = max(begin + number * timedelta(seconds=LONE_SECONDS), datetime.now(UTC) + timedelta(seconds=1))
            await self.create("lone", f"lone-{self._series}-{number}", due)
        return await watching

    async def due(self) -> tuple[list[float], list[float], list[float], float]:
        """The lags of many that are due at once, the times of GetBlob before and meanwhile, and firings a second."""
        count = self._sizes.due
        quiet = await self._probe(asyncio.sleep(QUIET_SECONDS))
        # They are put there with a time to come, which is then set: how long that takes is not known.
        await self.copies(await self.original("due"), count)
        seen = await self._seen("due")  # Before they are due: what has fired before them takes a while to read.
        at = datetime.now(UTC) + timedelta(seconds=2 + count / 20_000)
        watching = asyncio.create_task(self._lags("due", count, seen))
        await self._have_due(at)
        begin = time.perf_counter() + (at - datetime.now(UTC)).total_seconds()
        await asyncio.sleep(max(0.0, begin - time.perf_counter()))
        meanwhile = await self._probe(watching)
        return watching.result(), quiet, meanwhile, count / (time.perf_counter() - begin)

    async def _have_due(self, at: datetime) -> None:
        microseconds = round(at.timestamp() * 1_000_000)
        where = f"alias LIKE 'copy-{self._series}-%'"
        blob = "(SELECT id FROM blobs WHERE alias = 'due')"
        await execute(
            self._url,
            f"UPDATE schedules SET next_nominal_time = {microseconds}, next_due_time = {microseconds}"
            f" WHERE blob_id = {blob} AND {where}",
        )
        await self.create("due", f"bell-{self._series}", at + YEAR)

    async def _seen(self, blob: str) -> int:
        """How far the log of a blob's firings goes."""
        seen = 0
        request = firing_pb2.WatchFiringsRequest(blob=f"acme/{blob}", replay_only=True)
        async for batch in firings(self.api).WatchFirings(request):
            seen = batch.firings[-1].sequence if batch.firings else seen
        return seen

    async def _lags(self, blob: str, count: int, seen: int) -> list[float]:
        """Watch a blob until so many schedules have fired after what was seen; how late each was, in milliseconds."""
        lags: list[float] = []
        deadline = 60 + LONE * LONE_SECONDS + count / LEAST_FIRINGS_A_SECOND
        request = firing_pb2.WatchFiringsRequest(blob=f"acme/{blob}", after_sequence=seen)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(deadline):
                async for batch in firings(self.api).WatchFirings(request):
                    now = time.time()
                    begun = [firing for firing in batch.firings if not firing.HasField("end_time")]
                    lags += [(now - firing.nominal_time.ToNanoseconds() / 1e9) * 1000 for firing in begun]
                    if len(lags) >= count:
                        break
        return lags

    async def _probe(self, work: Awaitable[object]) -> list[float]:
        """Call GetBlob now and then while something is done; how long each call took, in milliseconds."""
        doing = asyncio.ensure_future(work)
        took = []
        while not doing.done():
            begin = time.perf_counter()
            await self.api.blobs.GetBlob(blob_pb2.GetBlobRequest(blob="acme/pipeline"))
            took.append((time.perf_counter() - begin) * 1000)
            await asyncio.sleep(PROBE_SECONDS)
        return took

    async def reads(self, blob: str) -> dict[str, float]:
        """Milliseconds of the first page of each list of a blob, and of the end of its log."""
        listing = schedule_pb2.ListSchedulesRequest(revision=f"acme/{blob}@draft")
        upcoming = schedule_pb2.ListUpcomingFiringsRequest(blob=f"acme/{blob}")
        fired = firing_pb2.ListFiringsRequest(blob=f"acme/{blob}")
        calls: dict[str, Callable[[], Awaitable[object]]] = {
            "ListSchedules": lambda: stub(self.api).ListSchedules(listing),
            "ListUpcomingFirings": lambda: stub(self.api).ListUpcomingFirings(upcoming),
            "ListFirings": lambda: firings(self.api).ListFirings(fired),
        }
        return {name: statistics.median([await _milliseconds(call) for _ in range(READS)]) for name, call in calls.items()}

    async def tell_due(self, stored: str) -> None:
        lags, quiet, meanwhile, rate = await self.due()
        if len(lags) < self._sizes.due:
            self.tell(f"{self._sizes.due:,} due at once{stored}", f"only {len(lags):,} fired in time")
        if not lags:
            return
        self.tell(f"{self._sizes.due:,} due at once{stored}", full_spread(lags), f"{rate:,.0f} firings/s")
        ratio = percentile(meanwhile, 0.99) / percentile(quiet, 0.99)
        self.tell("GetBlob before", spread(quiet))
        self.tell("GetBlob meanwhile", spread(meanwhile), f"p99 {ratio:.1f} × that before")


async def _milliseconds(call: Callable[[], Awaitable[object]]) -> float:
    begin = time.perf_counter()
    await call()
    return (time.perf_counter() - begin) * 1000


async def bench(folder: Path, name: str, url: str, sizes: Sizes) -> None:
    """All figures of one database."""
    it = Bench(folder, name, url, sizes)
    async with it.serving() as (start, memory):
        await it.prepare()
        few, rate, reads = await it.lone(), await it.creation_rate(), await it.reads("created")
        it.tell("lone", full_spread(few))
        await it.tell_due("")
        original = await it.original("stored")
    begin = time.perf_counter()
    await it.copies(original, sizes.stored, step=timedelta(seconds=1))
    put = time.perf_counter() - begin
    if not url.startswith("sqlite"):
        await execute(url, "VACUUM ANALYZE")  # as it does of itself within minutes
    stored = f"{sizes.stored:,} stored"
    it.tell(f"{stored} by SQL", f"{put:.0f} s")
    async with it.serving() as (later, more):
        it.tell(f"start to serving, {stored}", f"{later:.2f} s", f"{start:.2f} s when empty")
        it.tell(f"idle memory, {stored}", f"{more:.0f} MB", f"{memory:.0f} MB when empty")
        it.tell(f"lone, {stored}", full_spread(await it.lone()), f"p99 {percentile(few, 0.99):.1f} ms when empty")
        it.tell(f"created by calls, {stored}", f"{await it.creation_rate():,.0f}/s", f"{rate:,.0f}/s when empty")
        for call, took in (await it.reads("stored")).items():
            it.tell(f"{call}, {stored}", f"{took:.1f} ms", f"{reads[call]:.1f} ms of {CREATED}")
        await it.tell_due(f", {stored}")


async def apscheduler(folder: Path, sizes: Sizes) -> None:
    """The same of APScheduler, on SQLite, whose work is a function that does nothing."""
    command = [sys.executable, str(HERE / "schedules_on_apscheduler.py"), str(folder)]
    numbers = [str(number) for number in (sizes.peer_due, sizes.peer_stored, LONE)]
    ran = await asyncio.to_thread(subprocess.run, [*command, *numbers], stdout=subprocess.PIPE, check=True)
    empty, stored = (json.loads(ran.stdout)[name] for name in ("empty", "stored"))
    for found, told in ((empty, ""), (stored, f", {sizes.peer_stored:,} stored")):
        row(f"APScheduler, {sizes.peer_due:,} due at once{told}", full_spread(found["due"]), f"{len(found['due']):,} run")
        row(f"APScheduler, lone{told}", full_spread(found["lone"]))
        row(f"APScheduler, added by calls{told}", f"{found['rate']:,.0f}/s")
        row(f"APScheduler, start{told}", f"{found['start']:.2f} s", f"memory {found['memory']:.0f} MB")


async def main(folder: Path, sizes: Sizes) -> None:
    for each in ("sqlite", "postgresql", "apscheduler"):
        (folder / each).mkdir(mode=0o755, parents=True)
    begin = time.perf_counter()
    await apscheduler(folder / "apscheduler", sizes)
    await bench(folder / "sqlite", "SQLite", f"sqlite:///{folder / 'sqlite' / 'blobhub.db'}", sizes)
    with postgres_in(folder / "postgresql" / "server") as server:
        for name in ("fsync", "autovacuum"):
            server.psql(f"ALTER SYSTEM SET {name} = on;")
        server.psql("SELECT pg_reload_conf();")
        await bench(folder / "postgresql", "PostgreSQL", server.get_uri(), sizes)
    row("schedules, all of this", f"took {time.perf_counter() - begin:.0f} s")
