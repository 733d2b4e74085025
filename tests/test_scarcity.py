"""Where the system has no further thread to give, work waits for those that there are, or its caller is to come again."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from pathlib import Path

import flows
import grpc
import pytest
from blobhub_server.blobtypes.conformance import reason_of
from blobhub_server.errors import Overloaded
from blobhub_server.process_group import ProcessGroup
from blobhub_server.rpc.errors import to_blobhub_error
from blobhub_server.scarcity import Threads, work_in_threads
from blobhub_server.workflow.components.registry import ComponentRegistry
from blobhub_server.workflow.definitions.finder import LARGE_BYTES
from calling import ask
from failing_component import Fails
from interpreting import REGISTRY
from runs import run
from served import Api, connected, served

pytestmark = pytest.mark.either_database

DRAFT = "acme/pipeline@draft"
SIMPLE = flows.document([flows.component("start", "flow.start")], [])


@pytest.fixture
def no_further_thread(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From when it is called, no thread can begin."""

    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    return lambda: monkeypatch.setattr(threading, "_start_new_thread", refuse)


def test_work_waits_for_a_thread_that_there_is(no_further_thread: Callable[[], None]) -> None:
    go_on, done = threading.Event(), list[int]()
    with Threads(4) as threads:
        first = threads.submit(go_on.wait)
        no_further_thread()
        others = [threads.submit(done.append, number) for number in range(3)]
        go_on.set()
        assert first.result()
        assert [other.result() for other in others] == [None] * 3
    assert done == [0, 1, 2]


def test_work_that_there_is_no_thread_for_is_refused_and_never_done(
    no_further_thread: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pool of Python's has queued it before it raises."""
    done = list[str]()
    with Threads(4) as threads:
        no_further_thread()
        with pytest.raises(Overloaded):
            threads.submit(done.append, "refused")
        monkeypatch.undo()
        threads.submit(done.append, "taken").result()
    assert done == ["taken"]


def test_an_error_of_work_in_a_thread_is_raised_and_work_that_was_cancelled_is_not_done() -> None:
    go_on, done = threading.Event(), list[str]()
    with Threads(1) as threads:
        failing = threads.submit(lambda: go_on.wait() and 1 // 0)
        dropped = threads.submit(done.append, "dropped")
        assert dropped.cancel()
        go_on.set()
        with pytest.raises(ZeroDivisionError):
            failing.result()
    assert done == []


def test_an_event_loop_without_a_single_thread_is_overloaded(
    no_further_thread: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        work_in_threads()
        no_further_thread()
        with pytest.raises(Overloaded):
            await asyncio.to_thread(str)
        monkeypatch.undo()  # The loop ends with a thread.

    asyncio.run(work())  # A loop of its own: that of other tests has threads.


async def test_a_process_that_no_thread_can_watch_is_overloaded(no_further_thread: Callable[[], None]) -> None:
    no_further_thread()
    with open(os.devnull, "rb") as nothing, pytest.raises(Overloaded):
        ProcessGroup("/bin/sleep", "600", env={}, stdin=nothing)


def test_an_error_of_a_library_that_gets_no_thread_is_overloaded(no_further_thread: Callable[[], None]) -> None:
    no_further_thread()
    with pytest.raises(RuntimeError) as raised:
        threading.Thread(target=str).start()
    assert isinstance(to_blobhub_error(raised.value, "method"), Overloaded)
    assert to_blobhub_error(RuntimeError("another"), "method").reason == "INTERNAL"


async def test_a_call_that_needs_a_process_is_overloaded_and_others_are_served(
    api: Api, no_further_thread: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large definition is checked in a process, which a thread watches."""
    await api.session(SIMPLE)
    large = " " * LARGE_BYTES + SIMPLE
    no_further_thread()
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await ask(api, "CheckDefinition", revision=DRAFT, document=large)
    assert (refused.value.code(), reason_of(refused.value)) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED")
    assert (await ask(api, "CheckDefinition", revision=DRAFT, document=SIMPLE)).runnable
    monkeypatch.undo()
    assert (await ask(api, "CheckDefinition", revision=DRAFT, document=large)).runnable


async def test_a_step_that_gets_no_thread_fails_as_overloaded_and_is_tried_again(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fails = Fails(RuntimeError("can't start new thread"))
    monkeypatch.setattr(ComponentRegistry, "load", lambda: ComponentRegistry([*REGISTRY, fails]))
    policy = {"retry": {"maximum_attempts": 2, "initial_interval": "0.1s", "retryable_reasons": ["OVERLOADED"]}}
    document = flows.document(
        [flows.component("start", "flow.start"), flows.component("step", "test.fails", policy=policy)],
        [flows.control("start", "step")],
    )
    async with served(tmp_path, database_url) as server, connected(server.address, server.admin_key) as api:
        failed = await run(api, await api.session(document))
    assert (failed.failure.reason, fails.attempts) == ("OVERLOADED", [1, 2])
