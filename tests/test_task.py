"""Tasks: steps that the user's own programs do, each taken in once, by whoever has its lease."""

from __future__ import annotations

import json

import acme
import flows
import grpc
import pytest
import tasks
from blobhub.v1 import execution_pb2, task_pb2
from blobhub_client import page
from blobhub_server.blobtypes.conformance import expect_refusal, reason_of, unpack
from blobhub_server.workflow.tasks import leasing
from calling import ask
from google.rpc import error_details_pb2
from served import Api
from waiting import until

NOWHERE = "01890000-0000-7000-8000-000000000000"

COMPLETED = execution_pb2.EXECUTION_STATE_COMPLETED
FAILED = execution_pb2.EXECUTION_STATE_FAILED
STOPPED = execution_pb2.EXECUTION_STATE_STOPPED
LOST = grpc.StatusCode.FAILED_PRECONDITION, "LEASE_LOST"
TRIED_TWICE = {"retry": {"maximum_attempts": 2, "initial_interval": "0.01s"}}


async def test_a_worker_does_a_step(api: Api) -> None:
    session = await api.session(tasks.calls())
    async with tasks.leasing(api) as leases:
        begun = await tasks.start(api, session, {"width": 64, "exact": 2**60 + 1})
        leased = await leases.next()
        assert json.loads(leased.input_json) == {"width": 64, "exact": 2**60 + 1}
        task = leased.task
        assert (task.queue_name, task.execution_id, task.component_id) == ("resize", begun.id, "work")
        assert (task.state, task.attempt, task.worker) == (task_pb2.TASK_STATE_LEASED, 1, "ann")
        assert leased.idempotency_key == f"{begun.id}/{task.step}"
        await tasks.complete(api, leased.lease, {"done": True})
    ended = await tasks.ended(api, begun.id)
    assert (ended.state, dict(ended.result.struct_value)) == (COMPLETED, {"done": True})
    (kept,) = await tasks.listed(api)
    assert (kept.state, kept.id) == (task_pb2.TASK_STATE_COMPLETED, task.id)


async def test_what_waits_is_there_before_a_worker_comes_and_events_say_what_is_waited_for(api: Api) -> None:
    session = await api.session(tasks.calls(timeout=600))
    begun = await tasks.start(api, session)
    assert (await until(lambda: tasks.queue(api))).name == "resize"
    now = await until(lambda: waiting(api, 1))
    assert (now.waiting_tasks, now.leased_tasks, now.oldest_waiting_time.seconds > 0) == (1, 0, True)
    events = (await ask(api, "WatchExecution", execution=begun.id, replay_only=True)).events
    (shown,) = [event.processor_waiting for event in events if event.type == "processor.waiting"]
    assert shown.queue == "resize"
    assert shown.HasField("wake_time")
    async with tasks.leasing(api) as leases:
        leased = await leases.next()
        assert leased.task.deadline.seconds == shown.wake_time.seconds
        now = await tasks.queue(api)
        assert (now.waiting_tasks, [(each.name, each.leased_tasks) for each in now.workers]) == (0, [("ann", 1)])
        await tasks.complete(api, leased.lease)
    assert (await tasks.ended(api, begun.id)).state == COMPLETED


async def waiting(api: Api, count: int) -> task_pb2.Queue | None:
    now = await tasks.queue(api)
    return now if now.waiting_tasks == count else None


async def test_a_worker_has_as_many_tasks_as_it_says_and_the_next_when_one_ends(api: Api) -> None:
    session = await api.session(tasks.calls())
    begun = [await tasks.start(api, session, number) for number in range(5)]
    await until(lambda: waiting(api, 5))
    async with tasks.leasing(api, maximum_tasks=2) as leases:
        held = [await leases.next(), await leases.next()]
        assert [each.input.number_value for each in held] == [0, 1], "the oldest first"
        for number in range(2, 5):
            assert (await tasks.queue(api)).leased_tasks == 2
            await tasks.complete(api, held.pop(0).lease, number)
            held.append(await leases.next())
            assert held[-1].input.number_value == number
        for each in held:
            await tasks.complete(api, each.lease)
    assert {(await tasks.ended(api, each.id)).state for each in begun} == {COMPLETED}


async def test_a_lease_that_runs_out_gives_the_task_to_another_and_its_late_answer_is_refused(api: Api) -> None:
    session = await api.session(tasks.calls())
    begun = await tasks.start(api, session)
    async with tasks.leasing(api, seconds=1) as leases:
        late = await leases.next()
        assert (await tasks.extend(api, late.lease, "half")).lease_expire_time.seconds > 0
        assert [each.progress for each in await tasks.listed(api)] == ["half"]
    async with tasks.leasing(api, worker="ben") as others:
        leased = await others.next()
        assert (leased.task.id, leased.task.attempt, leased.task.worker) == (late.task.id, 2, "ben")
        assert (leased.idempotency_key, leased.task.progress) == (late.idempotency_key, "")
        for call in (tasks.complete(api, late.lease), tasks.fail(api, late.lease), tasks.extend(api, late.lease)):
            error = await expect_refusal(call, *LOST)
            info = error_details_pb2.ErrorInfo()
            assert unpack(error, info)
            assert info.metadata["state"] == "leased"
        await expect_refusal(tasks.give_back(api, late.lease), *LOST)
        await tasks.complete(api, leased.lease, "ben's")
    assert (await tasks.ended(api, begun.id)).result.string_value == "ben's"


async def test_an_answer_may_be_said_again_and_no_other_after_it(api: Api) -> None:
    session = await api.session(tasks.calls())
    begun = await tasks.start(api, session)
    async with tasks.leasing(api) as leases:
        lease = (await leases.next()).lease
    for _ in range(2):
        await tasks.complete(api, lease, "first")
    await expect_refusal(tasks.fail(api, lease), *LOST)
    await expect_refusal(tasks.extend(api, lease), *LOST)
    assert (await tasks.ended(api, begun.id)).result.string_value == "first"


async def test_a_lease_that_has_run_out_will_do_while_nobody_else_has_the_task(api: Api) -> None:
    session = await api.session(tasks.calls())
    begun = await tasks.start(api, session)
    async with tasks.leasing(api, seconds=1) as leases:
        lease = (await leases.next()).lease
    await until(lambda: waiting(api, 1))
    await tasks.complete(api, lease, "late and first")
    assert (await tasks.ended(api, begun.id)).result.string_value == "late and first"


async def test_a_task_that_is_given_back_comes_again_as_the_same_attempt(api: Api) -> None:
    session = await api.session(tasks.calls())
    await tasks.start(api, session)
    async with tasks.leasing(api) as leases:
        first = await leases.next()
        await tasks.give_back(api, first.lease)
        again = await leases.next()
        assert (again.task.id, again.task.attempt, again.lease != first.lease) == (first.task.id, 1, True)


async def test_a_failure_is_the_steps_and_is_tried_again_as_the_policy_says(api: Api) -> None:
    session = await api.session(tasks.calls(policy=TRIED_TWICE))
    begun = await tasks.start(api, session, "same input")
    async with tasks.leasing(api) as leases:
        first = await leases.next()
        await tasks.fail(api, first.lease, "BUSY", "come again", retryable=True)
        second = await leases.next()
        assert (second.task.attempt, second.task.id != first.task.id) == (2, True)
        assert second.idempotency_key == first.idempotency_key
        assert second.input.string_value == "same input"
        await tasks.fail(api, second.lease, "BROKEN", "for good", retryable=True)
    ended = await tasks.ended(api, begun.id)
    assert (ended.state, ended.failure.reason) == (FAILED, "BROKEN")
    assert "for good" in ended.failure.message
    assert {each.state for each in await tasks.listed(api)} == {task_pb2.TASK_STATE_FAILED}


async def test_an_input_may_be_an_expression_and_is_the_same_for_each_attempt(api: Api) -> None:
    given = {"type": "expression", "expression": "input.given * 2"}
    made = json.loads(tasks.calls(policy=TRIED_TWICE, input=given))
    made["connections"] = [each for each in made["connections"] if each["target_port"] != "input"]
    session = await api.session(json.dumps(made))
    begun = await tasks.start(api, session, 21)
    async with tasks.leasing(api) as leases:
        first = await leases.next()
        assert first.input.number_value == 42
        await tasks.fail(api, first.lease, retryable=True)
        second = await leases.next()
        assert second.input.number_value == 42
        await tasks.complete(api, second.lease, 42)
    assert (await tasks.ended(api, begun.id)).result.number_value == 42


async def test_what_no_worker_survives_is_given_up(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leasing, "MAX_LOST_LEASES", 1)
    session = await api.session(tasks.calls())
    begun = await tasks.start(api, session)
    for attempt in (1, 2):
        async with tasks.leasing(api, seconds=1) as leases:
            assert (await leases.next()).task.attempt == attempt
    async with tasks.leasing(api):
        assert (await tasks.ended(api, begun.id)).failure.reason == "LEASES_LOST"


async def test_a_worker_that_lets_a_lease_run_out_is_given_nothing_more_until_it_comes_again(api: Api) -> None:
    session = await api.session(tasks.calls())
    begun = await tasks.start(api, session, "first")
    async with tasks.leasing(api, maximum_tasks=2, seconds=1) as frozen:
        first = await frozen.next()
        with pytest.raises(grpc.aio.AioRpcError) as ended:
            await frozen.next()
        assert (ended.value.code(), reason_of(ended.value)) == (grpc.StatusCode.UNAVAILABLE, "WORKER_OVERDUE")
    await tasks.start(api, session, "second")
    async with tasks.leasing(api, maximum_tasks=2) as leases:
        again = {leased.input.string_value: leased for leased in (await leases.next(), await leases.next())}
        assert (again["first"].task.attempt, again["second"].task.attempt) == (first.task.attempt + 1, 1)
        await tasks.complete(api, again["first"].lease)
    assert (await tasks.ended(api, begun.id)).state == COMPLETED


async def test_what_is_not_retryable_is_not_tried_again(api: Api) -> None:
    session = await api.session(tasks.calls(policy=TRIED_TWICE))
    begun = await tasks.start(api, session)
    async with tasks.leasing(api) as leases:
        await tasks.fail(api, (await leases.next()).lease, "BROKEN")
    assert (await tasks.ended(api, begun.id)).failure.reason == "BROKEN"


async def test_a_step_that_takes_too_long_fails_and_its_worker_is_told_to_stop(api: Api) -> None:
    session = await api.session(tasks.calls(timeout=0.5))
    begun = await tasks.start(api, session)
    async with tasks.leasing(api) as leases:
        lease = (await leases.next()).lease
        assert (await tasks.ended(api, begun.id)).failure.reason == "TIMEOUT"
        assert (await tasks.extend(api, lease)).stop
        await expect_refusal(tasks.complete(api, lease), *LOST)


async def test_a_stop_ends_what_waits_and_tells_who_works(api: Api) -> None:
    session = await api.session(tasks.calls())
    begun = [await tasks.start(api, session, number) for number in range(2)]
    async with tasks.leasing(api) as leases:
        leased = await leases.next()
        for each in reversed(begun):
            await ask(api, "StopExecution", execution=each.id)
            assert not [task for task in await tasks.listed(api, state="WAITING") if task.execution_id == each.id]
        assert (await tasks.extend(api, leased.lease)).stop
        await expect_refusal(tasks.complete(api, leased.lease), *LOST)
        assert {(await tasks.ended(api, each.id)).state for each in begun} == {STOPPED}
        last = await tasks.start(api, session, "next")
        assert (await leases.next()).task.execution_id == last.id, "there is room, and nothing else"


async def test_a_closed_session_has_no_tasks(api: Api) -> None:
    session = await api.session(tasks.calls())
    begun = await tasks.start(api, session)
    await until(lambda: waiting(api, 1))
    await ask(api, "CloseSession", session=session)
    assert (await tasks.queue(api)).waiting_tasks == 0
    assert (await tasks.ended(api, begun.id)).state == STOPPED


async def test_a_deleted_blob_has_no_tasks(api: Api) -> None:
    session = await api.session(tasks.calls())
    await tasks.start(api, session)
    async with tasks.leasing(api) as leases:
        lease = (await leases.next()).lease
        await tasks.start(api, session)
        await ask(api, "DeleteBlob", blob="acme/pipeline", cascade=True)
        await expect_refusal(tasks.complete(api, lease), *LOST)
    assert (await tasks.queue(api)).waiting_tasks == 0
    assert await tasks.listed(api) == []


async def test_a_queue_is_listed_by_pages_in_both_orders_and_by_state(api: Api) -> None:
    session = await api.session(tasks.calls())
    begun = [(await tasks.start(api, session, number)).id for number in range(5)]
    async with tasks.leasing(api) as leases:
        leased = (await leases.next()).task.execution_id
        for order, expected in (("", begun), ("create_time desc", begun[::-1])):
            request = task_pb2.ListTasksRequest(queue=tasks.QUEUE, page_size=2, order_by=order)
            assert [task.execution_id async for task in page(tasks.stub(api).ListTasks, request)] == expected
        assert [task.execution_id for task in await tasks.listed(api, state="LEASED")] == [leased] == begun[:1]
        assert [task.execution_id for task in await tasks.listed(api, state="WAITING")] == begun[1:]


async def test_a_watch_tells_how_a_queue_fills_and_who_works_on_it(api: Api) -> None:
    session = await api.session(tasks.calls())
    watch = tasks.stub(api).StreamQueue(task_pb2.StreamQueueRequest(queue=tasks.QUEUE))
    await tasks.watched(watch, 0, 0)
    await tasks.start(api, session)
    assert (await tasks.watched(watch, 1, 0)).HasField("oldest_waiting_time")
    async with tasks.leasing(api) as leases:
        leased = await leases.next()
        (worker,) = (await tasks.watched(watch, 0, 1)).workers
        assert (worker.name, worker.leased_tasks, worker.connected) == ("ann", 1, True)
        await tasks.complete(api, leased.lease)
        (worker,) = (await tasks.watched(watch, 0, 0)).workers
        assert (worker.name, worker.leased_tasks, worker.connected) == ("ann", 0, True), "she waits for more"
    while (await tasks.watched(watch, 0, 0)).workers:
        pass
    watch.cancel()


async def test_a_worker_is_seen_before_anything_comes_and_after_it_has_gone_while_it_has_a_task(api: Api) -> None:
    session = await api.session(tasks.calls())
    async with tasks.leasing(api) as leases:
        await until(lambda: workers(api, [("ann", 0, True)]))
        await tasks.start(api, session)
        leased = await leases.next()
    await until(lambda: workers(api, [("ann", 1, False)]))
    await tasks.complete(api, leased.lease)
    assert await workers(api, [])


async def workers(api: Api, expected: list[tuple[str, int, bool]]) -> bool:
    found = (await tasks.queue(api)).workers
    return [(each.name, each.leased_tasks, each.connected) for each in found] == expected


async def test_what_no_queue_is_called_is_refused(api: Api) -> None:
    await acme.organization(api)
    for name in ("resize", "acme/Resize", "acme/a/b", "acme@1/b"):
        await expect_refusal(tasks.queue(api, name), grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REFERENCE")
    await expect_refusal(tasks.queue(api, "absent/resize"), grpc.StatusCode.NOT_FOUND, "NOT_FOUND")
    assert (await tasks.queue(api)).waiting_tasks == 0


async def test_a_lease_that_never_was_is_refused(api: Api) -> None:
    session = await api.session(tasks.calls())
    await tasks.start(api, session)
    async with tasks.leasing(api) as leases:
        lease = (await leases.next()).lease
    for made_up in (lease[:-1] + ("0" if lease[-1] != "0" else "1"), lease.replace(lease.split(".")[2], NOWHERE)):
        await expect_refusal(tasks.complete(api, made_up), *LOST)
    await expect_refusal(tasks.complete(api, "no lease"), grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")


@pytest.mark.parametrize(("settings", "place"), [({"queue": "No Queue"}, "queue"), ({"timeout": -1}, "timeout")])
async def test_check_says_what_is_wrong_with_a_call(api: Api, settings: dict[str, object], place: str) -> None:
    await api.session(flows.steps(1))
    document = tasks.calls(**settings) if "queue" not in settings else tasks.calls(str(settings["queue"]))
    found = await ask(api, "CheckDefinition", revision="acme/pipeline@draft", document=document)
    assert [place in problem.message or place in problem.path for problem in found.problems] == [True]
