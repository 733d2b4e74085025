"""APScheduler 3 on a SQLite file of its own: what it does with the same work, as one line of JSON.

`python schedules_on_apscheduler.py FOLDER DUE STORED LONE`
"""

from __future__ import annotations

import json
import pickle
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import sqlalchemy as sa
from apscheduler.job import Job
from apscheduler.jobstores.sqlalchemy import SQLAlchemyJobStore
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.date import DateTrigger

LONE_SECONDS = 0.1
"""How far apart lone jobs are."""
ADDED = 50
"""How many jobs are added by calls, to see how fast that goes."""
DEADLINE_SECONDS = 120
FUNCTION = "schedules_on_apscheduler:fire"

fired: list[tuple[float, str]] = []
enough = threading.Semaphore(0)


def fire(name: str) -> None:
    """The work: none."""
    fired.append((time.time(), name))
    enough.release()


class Jobs:
    """A scheduler and its store, into which jobs are put by SQL, too."""

    def __init__(self, url: str) -> None:
        self._engine = sa.create_engine(url)
        self._store = SQLAlchemyJobStore(engine=self._engine)
        self.scheduler = BackgroundScheduler(jobstores={"default": self._store}, timezone=UTC)

    def start(self) -> float:
        """Start, and have it look at the store; how long that took, in seconds."""
        begin = time.perf_counter()
        self.scheduler.start()
        self.scheduler._process_jobs()
        return time.perf_counter() - begin

    def add(self, name: str, at: float) -> Job:
        """Add a job by a call; it is run however late it is."""
        date = datetime.fromtimestamp(at, UTC)
        return self.scheduler.add_job(FUNCTION, "date", run_date=date, args=[name], id=name, misfire_grace_time=None)

    def put(self, due: dict[str, float]) -> None:
        """Put jobs into the store by SQL, copies of one that was added, and wake the scheduler."""
        state = self.add("pattern", time.time() + 1e7).__getstate__()
        rows = [{"id": name, "next_run_time": at, "job_state": _pickled(state, name, at)} for name, at in due.items()]
        with self._engine.begin() as connection:
            connection.execute(self._store.jobs_t.insert(), rows)
        self.scheduler.remove_job("pattern")
        self.scheduler.wakeup()

    def lags(self, due: dict[str, float]) -> list[float]:
        """Put jobs there; how late each was, in milliseconds, once all have been run."""
        self.put(due)
        end = time.monotonic() + DEADLINE_SECONDS
        for _ in due:
            enough.acquire(timeout=max(0.0, end - time.monotonic()))
        return [(at - due[name]) * 1000 for at, name in fired if name in due]


def _pickled(state: dict[str, Any], name: str, at: float) -> bytes:
    date = datetime.fromtimestamp(at, UTC)
    own = {"id": name, "args": [name], "next_run_time": date, "trigger": DateTrigger(date)}
    return pickle.dumps(state | own, pickle.HIGHEST_PROTOCOL)


def main(folder: Path, due: int, stored: int, lone: int) -> None:
    url, found = f"sqlite:///{folder}/apscheduler.db", {}
    for name in ("empty", "stored"):
        jobs = Jobs(url)
        took = jobs.start()
        begin = time.perf_counter()
        for number in range(ADDED):
            jobs.add(f"{name}-added-{number}", time.time() + 1e7)
        rate = ADDED / (time.perf_counter() - begin)
        now = time.time() + 2
        alone = jobs.lags({f"{name}-lone-{number}": now + number * LONE_SECONDS for number in range(lone)})
        at = time.time() + 2 + due / 10_000
        together = jobs.lags({f"{name}-due-{number}": at for number in range(due)})
        memory = psutil.Process().memory_info().rss / 1e6
        found[name] = {"start": took, "memory": memory, "rate": rate, "lone": alone, "due": together}
        if name == "empty":
            jobs.put({f"stored-{number}": at + 1e7 + number for number in range(stored)})
        jobs.scheduler.shutdown()
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    # Jobs are stored by the name of their function, so this has to be a module of that name.
    import schedules_on_apscheduler

    schedules_on_apscheduler.main(Path(sys.argv[1]), *map(int, sys.argv[2:5]))
