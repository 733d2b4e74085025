"""Models that crash, run for ever or take all memory, callers that flood: what they do to others, which is little."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import contextmanager, suppress
from dataclasses import replace

import numpy as np
import onnx_models
import psutil
import pytest
from blobhub_server.errors import StorageUnavailable
from blobhub_server.onnx.inference.engine import InferenceEngine, StoredModel
from blobhub_server.onnx.inference.errors import (
    InferenceCrashed,
    InferenceError,
    InferenceExhausted,
    InferenceMemoryFull,
    InferenceQueueFull,
    ModelNotLoaded,
    ModelResting,
)
from blobhub_server.onnx.inference.process import ModelProcess
from inferring import (
    INT64,
    LIMITS,
    PARTY,
    ask,
    doubling,
    engine,
    filling,
    limited,
    looping,
    model,
    processes,
    spreading,
    stored,
    tensor,
)
from onnx import helper
from onnx_hostile import CRASHING
from waiting import until, within_deadline

ROWS = np.ones((1, 4), np.float32)


async def test_a_model_that_takes_all_memory_is_refused_that_and_answers_the_next() -> None:
    made = stored(filling())
    async with engine() as running:
        assert (await ask(running, made, n=np.array([10])))["y"] == 0
        with pytest.raises(InferenceExhausted, match="more than 2048 MiB of memory") as refused:
            await ask(running, made, n=np.array([1 << 30]))
        assert refused.value.metadata == {"what": "memory"}
        assert (await ask(running, made, n=np.array([10])))["y"] == 0


async def test_a_model_that_takes_a_hundred_gigabytes_of_its_own_is_refused_that() -> None:
    made = stored(onnx_models.filled(160_000, 160_000))
    async with engine() as running:
        for _ in range(2):
            with pytest.raises(InferenceExhausted, match="more than 2048 MiB of memory"):
                await ask(running, made, x=ROWS[0])


async def test_a_model_that_kills_onnxruntime_rests_and_others_answer() -> None:
    nodes = [helper.make_node("Div", ["a", "b"], ["q"])]
    made, other = stored(model(nodes, [("a", INT64, [1]), ("b", INT64, [1])], [("q", INT64, [1])])), stored(doubling())
    a, b = (np.array([each]) for each in CRASHING)
    async with engine(limited(min_rest_seconds=600)) as running:
        assert (await ask(running, made, a=a, b=-b))["q"] == a
        with pytest.raises(InferenceCrashed, match="signal 8"):
            await ask(running, made, a=a, b=b)
        with pytest.raises(ModelResting, match="signal 8"):
            await ask(running, made, a=a, b=-b)
        assert (await ask(running, other, x=ROWS))["y"][0][0] == 2


async def test_a_model_with_one_output_twice_answers_it_once() -> None:
    made = doubling()
    made.graph.output.append(made.graph.output[0])
    async with engine() as running:
        answer = await running.infer(stored(made), [tensor("x", ROWS)], (), PARTY)
        assert [each.name for each in answer.outputs] == ["y"]


async def test_an_answer_that_is_too_large_is_refused_where_it_is_made() -> None:
    made = stored(spreading())
    async with engine() as running:
        assert (await ask(running, made, n=np.array([1_000_000])))["y"].shape == (1_000_000,)
        with pytest.raises(InferenceExhausted, match="the answer has 8000000 bytes; at most 4128768 can be sent"):
            await ask(running, made, n=np.array([2_000_000]))


async def test_a_model_that_runs_for_ever_is_killed_and_rests_while_others_answer() -> None:
    made, other = stored(looping()), stored(doubling())
    async with engine(limited({"max_run_seconds": 2}, min_rest_seconds=600)) as running:
        assert (await ask(running, made, n=np.array(10)))["y"] == 10
        endless = asyncio.create_task(ask(running, made, n=np.array(1 << 62)))
        await until(lambda: running.statistics(*made.key).execution_count == 1)
        behind = [asyncio.create_task(ask(running, made, n=np.array(each))) for each in range(3)]
        assert (await within_deadline(ask(running, other, x=ROWS)))["y"][0][0] == 2
        with pytest.raises(InferenceExhausted, match="took more than 2 s") as refused:
            await within_deadline(endless)
        assert refused.value.metadata == {"what": "time"}
        for each in behind:
            with pytest.raises(ModelResting):
                await within_deadline(each)
        with pytest.raises(ModelResting) as resting:
            await ask(running, made, n=np.array(1))
        assert 500 < resting.value.retry_after_seconds <= 600
        assert len(processes()) == 1
        assert running.statistics(*made.key).failures == {"INFERENCE_EXHAUSTED": 1, "INFERENCE_RESTING": 4}


@contextmanager
def frozen(process: psutil.Process):
    """A process that does nothing for a while."""
    process.suspend()
    try:
        yield
    finally:
        with suppress(psutil.NoSuchProcess):  # or it was killed meanwhile
            process.resume()


async def queue(running: InferenceEngine, model: StoredModel, names: list[str]) -> list[asyncio.Task]:
    """Requests of these callers, one after the other; all of them wait."""
    tasks = [asyncio.create_task(ask(running, model, ("organization", name), x=ROWS)) for name in names]
    await asyncio.sleep(0)
    return tasks


async def outcomes(tasks: list[asyncio.Task]) -> list[str]:
    """What became of requests: `answered`, or the reason of the error."""
    found = await within_deadline(asyncio.gather(*tasks, return_exceptions=True))
    return [each.reason if isinstance(each, InferenceError) else "answered" for each in found]


async def test_a_process_that_crashes_is_started_again_after_a_rest_that_gets_longer() -> None:
    made = stored(doubling("n"))
    async with engine(limited(min_rest_seconds=0.05, max_rest_seconds=600)) as running:
        for number in range(3):
            await until(lambda: answers(running, made))
            (process,) = processes()
            with frozen(process):
                (task,) = await queue(running, made, ["a"])
                await asyncio.sleep(0.05)
                process.send_signal(signal.SIGSEGV)
            with pytest.raises(InferenceCrashed, match="signal 11"):
                await within_deadline(task)
            with pytest.raises(ModelResting, match="signal 11") as resting:
                await ask(running, made, x=ROWS)
            assert resting.value.retry_after_seconds <= 0.05 * 2**number


async def answers(running: InferenceEngine, model: StoredModel) -> bool:
    """Whether a model answers; it may rest."""
    try:
        await ask(running, model, x=ROWS)
    except ModelResting:
        return False
    return True


async def test_after_a_batch_of_several_has_crashed_requests_are_not_put_together_any_more() -> None:
    made = stored(doubling())
    async with engine(limited(min_rest_seconds=0.01)) as running:
        await ask(running, made, x=ROWS)
        (process,) = processes()
        with frozen(process):
            tasks = await queue(running, made, ["a", "b", "c"])
            await asyncio.sleep(0.05)
            process.kill()
        assert await outcomes(tasks) == ["INFERENCE_RESTING"] * 3, "none of them is told that it was the one"
        await until(lambda: answers(running, made))
        before = running.statistics(*made.key).execution_count
        await asyncio.gather(*await queue(running, made, list("abcdef")))
        assert running.statistics(*made.key).execution_count == before + 6


async def test_a_process_that_is_killed_while_nobody_asks_is_noticed() -> None:
    made = stored(doubling())
    async with engine(limited(min_rest_seconds=0.01)) as running:
        await ask(running, made, x=ROWS)
        processes()[0].kill()
        await until(lambda: not running.is_loaded(*made.key))
        await until(lambda: answers(running, made))


async def test_who_floods_a_model_is_refused_and_others_are_not() -> None:
    made = stored(doubling())
    async with engine(limited(max_queued=10)) as running:
        await ask(running, made, x=ROWS)
        with frozen(processes()[0]):
            flood = await queue(running, made, ["flood"] * 50)
            others = await queue(running, made, ["one", "other"])
            await until(lambda: sum(each.done() for each in flood) >= 38)
        assert await outcomes(others) == ["answered"] * 2
        refused = [each for each in flood if each.exception()]
        assert {type(each.exception()) for each in refused} == {InferenceQueueFull}
        assert refused[0].exception().retry_after_seconds


async def test_what_waits_is_bounded_by_bytes_too() -> None:
    made = stored(doubling())
    async with engine(limited(max_queued_bytes=64)) as running:
        await ask(running, made, x=ROWS)
        with frozen(processes()[0]):
            tasks = await queue(running, made, ["a"] * 20)
            await until(lambda: sum(each.done() for each in tasks) >= 10)
        assert set(await outcomes(tasks)) == {"answered", "INFERENCE_QUEUE_FULL"}


async def test_a_request_whose_caller_has_gone_is_not_computed() -> None:
    made = stored(doubling("n"))
    async with engine() as running:
        await ask(running, made, x=ROWS)
        with frozen(processes()[0]):
            ahead = await queue(running, made, ["a", "b"])
            await asyncio.sleep(0.05)
            tasks = await queue(running, made, ["c"] * 5)
            for each in tasks:
                each.cancel()
            await asyncio.wait(tasks)
        await asyncio.gather(*ahead)
        assert (await ask(running, made, x=ROWS))["y"][0][0] == 2
        counted = running.statistics(*made.key)
        assert (counted.execution_count, counted.failures) == (4, {"CANCELLED": 5})


async def test_models_that_nobody_asks_make_room_and_others_do_not() -> None:
    one, other = stored(doubling("n")), stored(doubling("m"))
    async with engine(limited(max_models=1)) as running:
        await ask(running, one, x=ROWS)
        await ask(running, other, x=ROWS)
        assert not running.is_loaded(*one.key)
        await until(lambda: len(processes()) == 1)
        with frozen(processes()[0]):
            busy = await queue(running, other, ["a"])
            with pytest.raises(InferenceMemoryFull):
                await ask(running, one, x=ROWS)
        assert await outcomes(busy) == ["answered"]
    async with engine(limited(max_memory_bytes=1)) as running:
        for each in (one, other, one):
            await ask(running, each, x=ROWS)
            assert running.is_loaded(*each.key), "one that needs more than there is, is loaded alone"
        assert not running.is_loaded(*other.key)


async def test_a_model_that_nobody_has_asked_for_long_is_unloaded() -> None:
    made = stored(doubling())
    async with engine(limited(idle_seconds=0)) as running:
        await ask(running, made, x=ROWS)
        running.end_idle()
        await until(lambda: not processes())
        assert (await ask(running, made, x=ROWS))["y"][0][0] == 2


async def test_a_model_that_cannot_be_loaded_says_why_and_is_not_tried_again_at_once() -> None:
    made = stored(doubling())

    async def read() -> AsyncIterator[bytes]:
        yield b"x" * made.size

    async with engine() as running:
        broken = replace(made, read=read)
        with pytest.raises(ModelNotLoaded, match="cannot be loaded: "):
            await ask(running, broken, x=ROWS)
        with pytest.raises(ModelResting, match="cannot be loaded: "):
            await ask(running, broken, x=ROWS)
        assert not processes()


async def test_a_model_whose_bytes_cannot_be_read_now_is_tried_again() -> None:
    made = stored(doubling())

    async def read() -> AsyncIterator[bytes]:
        yield b"x"
        raise StorageUnavailable

    async with engine() as running:
        for _ in range(2):
            with pytest.raises(StorageUnavailable):
                await ask(running, replace(made, read=read), x=ROWS)
        assert (await ask(running, made, x=ROWS))["y"][0][0] == 2


async def test_the_clock_of_a_model_stands_while_its_bytes_are_awaited() -> None:
    process = ModelProcess(LIMITS.process, lambda *_: None)

    async def slowly() -> AsyncIterator[bytes]:
        assert clock.when() is None
        await asyncio.sleep(0.1)
        yield b"some"

    async with asyncio.timeout(60) as clock:
        before, model = clock.when(), slowly()
        assert await process._next_chunk(model, clock) == b"some"
        assert clock.when() >= before + 0.09
        assert await process._next_chunk(model, clock) == b""


async def test_a_model_that_takes_too_long_or_too_much_to_load_is_not_loaded() -> None:
    made = stored(doubling())
    async with engine(limited({"max_load_seconds": 0.05})) as running:
        with pytest.raises(InferenceExhausted, match="loading the model took more than"):
            await ask(running, made, x=ROWS)
    async with engine(limited({"max_memory_bytes": 128 << 20})) as running:
        with pytest.raises(InferenceError):
            await ask(running, made, x=ROWS)
    assert not processes()


async def test_no_process_is_left_when_the_engine_ends_whatever_they_do() -> None:
    made, endless = stored(doubling()), stored(looping())
    async with engine() as running:
        await ask(running, made, x=ROWS)
        await ask(running, endless, n=np.array(1))
        tasks = [asyncio.create_task(ask(running, endless, n=np.array(1 << 62)))]
        tasks.append(asyncio.create_task(ask(running, stored(doubling("loading")), x=ROWS)))
        await asyncio.sleep(0.1)
    assert not processes()
    assert "answered" not in await outcomes(tasks)
