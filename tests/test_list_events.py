"""Events in pages: what a watch streams, in either order, filtered, and polled without loss while executions run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import flows
import grpc
import pytest
from blobhub.v1 import event_pb2, execution_pb2, session_object_pb2, session_pb2
from blobhub_client import page
from blobhub_server.blobtypes.conformance import expect_refusal
from blobhub_server.db.portion import MAX_PAGE_BYTES
from buf.validate import validate_pb2
from figures import Figure
from google.protobuf.struct_pb2 import Value
from google.protobuf.timestamp_pb2 import Timestamp
from scale import scaled
from served import Api, Served
from waiting import until

Event = event_pb2.Event
NEWEST_FIRST = "session_sequence desc"
ABSENT = "0198c0de-0000-7000-8000-000000000000"
POLLS = scaled(10_000, least=400)
EXECUTIONS = scaled(500, least=20)
STARTERS = 4
POLLERS: tuple[dict[str, Any], ...] = (
    {"page_size": 3},
    {"page_size": 50},
    {"page_size": 1000},
    {"page_size": 5, "types": ["processor.exited", "session_object_modified"]},
)


async def log_of(api: Api, session_id: str) -> list[Event]:
    """The whole log, as a watch streams it."""
    call = api.sessions.WatchSession(session_pb2.WatchSessionRequest(session=session_id, replay_only=True))
    return [event async for message in call for event in message.events]


async def run(api: Api, session_id: str) -> str:
    """Run an execution to its end; its id."""
    request = execution_pb2.RunExecutionRequest(session=session_id, spec={"definition": "workflow"})
    messages = [message async for message in api.executions.RunExecution(request)]
    return messages[0].execution.id


async def note(api: Api, session_id: str, text: str = "x") -> None:
    """Make an event of the session itself."""
    value = Value(string_value=text)
    request = session_object_pb2.PutSessionObjectRequest(session=session_id, alias="note", value=value)
    await api.session_objects.PutSessionObject(request)


async def listed(api: Api, session_id: str, **fields: Any) -> list[Event]:
    """All events that a list holds, page after page."""
    request = session_pb2.ListEventsRequest(session=session_id, **fields)
    return [event async for event in page(api.sessions.ListEvents, request)]


async def small_log(api: Api) -> tuple[str, list[str], list[Event]]:
    """A session in which executions ran beside each other, and its own events: its id, theirs, and the log."""
    session_id = await api.session(flows.steps(3))
    await note(api, session_id)
    executions = await asyncio.gather(*(run(api, session_id) for _ in range(5)))
    await note(api, session_id)
    return session_id, executions, await log_of(api, session_id)


@pytest.mark.parametrize("page_size", [1, 7, 0, 1000])
async def test_pages_in_either_order_hold_what_a_watch_streams(api: Api, page_size: int) -> None:
    session_id, _, log = await small_log(api)
    assert len(log) > 50
    assert await listed(api, session_id, page_size=page_size) == log
    assert await listed(api, session_id, page_size=page_size, order_by=NEWEST_FIRST) == log[::-1]


async def test_filters_keep_what_they_say_after_any_place_in_either_order(api: Api) -> None:
    session_id, executions, log = await small_log(api)
    types = ["processor.exited", "flow.exited"]
    filters: list[tuple[dict[str, Any], Callable[[Event], bool]]] = [
        ({}, lambda _: True),
        ({"types": types}, lambda event: event.type in types),
        ({"types": ["session_object_modified"]}, lambda event: not event.execution_id),
        ({"execution": executions[2]}, lambda event: event.execution_id == executions[2]),
        (
            {"execution": executions[2], "types": types},
            lambda event: event.execution_id == executions[2] and event.type in types,
        ),
    ]
    for chosen, keeps in filters:
        for last in (log[0], log[len(log) // 3], log[-3], log[-1]):
            kept = [event for event in log if keeps(event) and event.session_sequence > last.session_sequence]
            for place in ({"after_session_sequence": last.session_sequence}, {"after_time": last.create_time}):
                assert await listed(api, session_id, page_size=4, **place, **chosen) == kept
                newest_first = await listed(api, session_id, page_size=4, order_by=NEWEST_FIRST, **place, **chosen)
                assert newest_first == kept[::-1]


async def test_a_time_between_two_events_is_after_the_first_of_them(api: Api) -> None:
    session_id, _, log = await small_log(api)
    before = Timestamp(seconds=log[0].create_time.seconds - 1)
    assert await listed(api, session_id, after_time=before) == log
    finer = Timestamp(seconds=log[3].create_time.seconds, nanos=log[3].create_time.nanos + 999)
    assert await listed(api, session_id, after_time=finer) == log[4:]


async def test_a_poll_that_comes_back_empty_goes_on_from_the_same_time(api: Api) -> None:
    session_id, _, log = await small_log(api)
    place = {"after_time": log[-1].create_time}
    for _ in range(2):
        answer = await api.sessions.ListEvents(session_pb2.ListEventsRequest(session=session_id, **place))
        assert answer == session_pb2.ListEventsResponse()
    await note(api, session_id)
    assert [event.session_sequence for event in await listed(api, session_id, **place)] == [len(log) + 1]
    empty = (await api.sessions.CreateSession(session_pb2.CreateSessionRequest(revision="acme/pipeline@draft"))).session.id
    assert (
        await listed(api, empty)
        == await listed(api, empty, **place)
        == await listed(api, empty, order_by=NEWEST_FIRST)
        == []
    )


async def test_large_events_are_cut_into_pages_by_their_bytes(api: Api) -> None:
    session_id = await api.session(flows.code("set_data_output('result', 'x' * 700000)\nset_result('success')"))
    for _ in range(5):
        await run(api, session_id)
    log = await log_of(api, session_id)
    for order_by, expected in (("", log), (NEWEST_FIRST, log[::-1])):
        request = session_pb2.ListEventsRequest(session=session_id, page_size=1000, order_by=order_by)
        seen, pages = [], 0
        while not pages or request.page_token:
            answer = await api.sessions.ListEvents(request)
            assert sum(event.ByteSize() for event in answer.events[:-1]) < MAX_PAGE_BYTES
            seen += answer.events
            pages += 1
            request.page_token = answer.next_page_token
        assert pages > 1
        assert seen == expected


async def test_an_execution_of_another_session_is_like_one_that_is_absent(api: Api) -> None:
    session_id, executions, _ = await small_log(api)
    other = (await api.sessions.CreateSession(session_pb2.CreateSessionRequest(revision="acme/pipeline@draft"))).session.id
    told = []
    for execution in (executions[0], ABSENT):
        call = api.sessions.ListEvents(session_pb2.ListEventsRequest(session=other, execution=execution))
        error = await expect_refusal(call, grpc.StatusCode.NOT_FOUND, "NOT_FOUND")
        told.append(error.details().replace(execution, "it"))
    assert told[0] == told[1]
    assert session_id != other


async def test_what_is_not_of_this_list_is_refused(api: Api) -> None:
    session_id, executions, log = await small_log(api)
    request = session_pb2.ListEventsRequest(session=session_id, page_size=2)
    token = (await api.sessions.ListEvents(request)).next_page_token
    for change in (
        {"execution": executions[0]},
        {"order_by": NEWEST_FIRST},
        {"types": ["flow.entered"]},
        {"after_session_sequence": 1},
        {"after_time": log[0].create_time},
    ):
        call = api.sessions.ListEvents(session_pb2.ListEventsRequest(session=session_id, page_token=token, **change))
        await expect_refusal(call, grpc.StatusCode.INVALID_ARGUMENT, "INVALID_PAGE_TOKEN")
    for change, code, reason in (
        ({"types": ["processor.ended"]}, grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST"),
        ({"order_by": "create_time"}, grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST"),
        ({"after_time": Timestamp(seconds=1 << 60)}, grpc.StatusCode.INVALID_ARGUMENT, "INVALID_VALUE"),
        ({"after_session_sequence": len(log) + 1}, grpc.StatusCode.OUT_OF_RANGE, "SEQUENCE_OUT_OF_RANGE"),
    ):
        call = api.sessions.ListEvents(session_pb2.ListEventsRequest(session=session_id, **change))
        await expect_refusal(call, code, reason)


def test_events_of_every_type_can_be_asked_for() -> None:
    field = session_pb2.ListEventsRequest.DESCRIPTOR.fields_by_name["types"]
    rules = field.GetOptions().Extensions[validate_pb2.field]
    payloads = [payload.name for payload in Event.DESCRIPTOR.oneofs_by_name["payload"].fields]
    types = [name.replace("_", ".", name.startswith(("flow_", "processor_", "scope_"))) for name in payloads]
    assert list(getattr(rules.repeated.items.string, "in")) == types


class Poller:
    """Asks for what is after the time of its last event, again and again."""

    def __init__(self, api: Api, session_id: str, fields: dict[str, Any]) -> None:
        self._api, self._session_id, self._fields = api, session_id, fields
        self.seen: list[Event] = []
        self.polls = 0

    async def poll(self) -> None:
        """Ask once, with all pages of the answer."""
        after = {"after_time": self.seen[-1].create_time} if self.seen else {}
        request = session_pb2.ListEventsRequest(session=self._session_id, **after, **self._fields)
        while True:
            answer = await self._api.sessions.ListEvents(request)
            self.polls += 1
            self.seen += answer.events
            request.page_token = answer.next_page_token
            if not answer.next_page_token:
                return


@pytest.mark.timeout(3600)
async def test_polling_by_time_loses_nothing_repeats_nothing_and_keeps_the_order(
    server: Served, api: Api, figure: Figure
) -> None:
    session_id = await api.session(flows.steps(3))
    pollers = [Poller(api, session_id, fields) for fields in POLLERS]

    def polls() -> int:
        return sum(poller.polls for poller in pollers)

    async def keep_polling(poller: Poller, stop: asyncio.Event) -> None:
        while not stop.is_set() or polls() < POLLS:
            await poller.poll()
        await poller.poll()

    async def keep_starting(first: int) -> None:
        """Run every fourth execution, each when as many polls have been made as are due before it."""
        for number in range(first, EXECUTIONS, STARTERS):
            await until(lambda due=number * POLLS // EXECUTIONS: polls() >= due)
            await run(api, session_id)
            await note(api, session_id)

    stop = asyncio.Event()
    polling = [asyncio.create_task(keep_polling(poller, stop)) for poller in pollers]
    await asyncio.gather(*map(keep_starting, range(STARTERS)))
    stop.set()
    await asyncio.gather(*polling)
    log = await log_of(api, session_id)
    assert [event.session_sequence for event in log] == list(range(1, len(log) + 1))
    assert len({event.execution_id for event in log if event.execution_id}) == EXECUTIONS
    for poller, fields in zip(pollers, POLLERS, strict=True):
        wanted = fields.get("types")
        assert poller.seen == [event for event in log if not wanted or event.type in wanted]
    assert polls() >= POLLS
    figure(f"{polls()} polls by time during {EXECUTIONS} executions, {len(log)} events: none lost, none twice, in order")
