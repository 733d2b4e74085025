"""A poll of a session's newest events costs the same however long the log is."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import flows
import pytest
from blobhub.v1 import event_pb2, execution_pb2, session_pb2
from blobhub_server.ids import Uuid7
from databases import execute
from google.protobuf.timestamp_pb2 import Timestamp
from hoard import Row, put_rows
from plans import Postgresql, Sqlite, Statement, Work, asked, database
from scale import scaled
from served import Api, connected, served

SHORT, LONG = 100, scaled(200_000, least=20_000)
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
NEWEST = 10
NEWEST_FIRST = "session_sequence desc"
TYPE = "processor.exited"


@dataclass
class Logs:
    """A server with a short log and a long one, each with every second event of one execution; and its database."""

    api: Api
    database: Sqlite | Postgresql
    sessions: dict[int, str]
    executions: dict[int, str]


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
async def logs(request, tmp_path_factory) -> AsyncIterator[Logs]:
    folder = tmp_path_factory.mktemp("log")
    kind = request.param
    url = f"sqlite:///{folder / 'hub.db'}" if kind == "sqlite" else await request.getfixturevalue("fresh_postgres")()
    async with served(folder, url) as server, connected(server.address, server.admin_key) as api:
        sessions, executions = {}, {}
        first = await api.session(flows.steps(1))
        for length in (SHORT, LONG):
            create = session_pb2.CreateSessionRequest(revision="acme/pipeline@draft")
            sessions[length] = first if length == SHORT else (await api.sessions.CreateSession(create)).session.id
            start = execution_pb2.RunExecutionRequest(session=sessions[length], spec={"definition": "workflow"})
            messages = [message async for message in api.executions.RunExecution(start)]
            executions[length] = messages[0].execution.id
        await lengthen(url, sessions, executions)
        async with database(url) as opened:
            yield Logs(api=api, database=opened, sessions=sessions, executions=executions)


async def lengthen(url: str, sessions: dict[int, str], executions: dict[int, str]) -> None:
    """Put the events of both logs in the place of those that they have, behind the server's back."""
    await execute(url, "DELETE FROM events")
    rows: list[Row] = []
    ids = Uuid7()
    for length, session_id in sessions.items():
        await execute(url, f"UPDATE sessions SET last_session_sequence = {length} WHERE id = '{session_id}'")
        last = f"UPDATE executions SET last_execution_sequence = {length // 2} WHERE id = '{executions[length]}'"
        await execute(url, last)
        rows += [row(number, session_id, executions[length], ids()) for number in range(1, length + 1)]
    await put_rows(url, {"events": rows})


def row(number: int, session_id: str, execution_id: str, id_: str) -> Row:
    """An event. Every second one is the execution's, and every second one of these is of the type that is asked for."""
    own = number % 2 == 0
    event = event_pb2.Event(id=id_, session_sequence=number, create_time=time_of(number))
    return {
        "session_id": session_id,
        "session_sequence": number,
        "execution_id": execution_id if own else None,
        "execution_sequence": number // 2 if own else 0,
        "type": TYPE if number % 4 == 0 else "processor.entered",
        "create_time": time_of(number).ToMicroseconds(),
        "event": event.SerializeToString(),
    }


def time_of(number: int) -> Timestamp:
    made = Timestamp()
    made.FromDatetime(BEGIN + timedelta(microseconds=3 * number))
    return made


POLLS: dict[str, dict[str, Any]] = {
    "by time": {"by_time": True},
    "by sequence": {},
    "of a type": {"types": [TYPE]},
    "by time, of a type": {"by_time": True, "types": [TYPE]},
    "newest first": {"order_by": NEWEST_FIRST, "page_size": NEWEST},
    "of an execution": {"execution": True},
    "by time, of an execution": {"by_time": True, "execution": True},
    "newest first, of an execution": {"execution": True, "order_by": NEWEST_FIRST, "page_size": NEWEST // 2},
    "of an execution, of a type": {"execution": True, "types": [TYPE]},
}


async def poll(logs: Logs, length: int, fields: dict[str, Any]) -> tuple[list[int], list[Statement]]:
    """Ask one of the logs for its newest events: their numbers, and what the database was asked about events."""
    fields = dict(fields)
    by_time, of_execution = fields.pop("by_time", False), fields.pop("execution", False)
    last_seen = length - NEWEST
    if by_time:
        fields["after_time"] = time_of(last_seen)
    elif "order_by" not in fields:
        fields["after_session_sequence"] = last_seen
    if of_execution:
        fields["execution"] = logs.executions[length]
    with asked() as statements:
        answer = await logs.api.sessions.ListEvents(session_pb2.ListEventsRequest(session=logs.sessions[length], **fields))
    about_events = [statement for statement in statements if "FROM events" in statement.sql]
    return [event.session_sequence - length for event in answer.events], about_events


@pytest.mark.parametrize("fields", POLLS.values(), ids=POLLS)
async def test_a_poll_of_the_newest_events_costs_the_same_in_a_short_and_a_long_log(
    logs: Logs, fields: dict[str, Any]
) -> None:
    shown, works = [], []
    for length in (SHORT, LONG):
        numbers, statements = await poll(logs, length, fields)
        shown.append(numbers)
        assert not any(statement.counts for statement in statements)
        works.append([await logs.database.work(statement) for statement in statements])
    assert shown[0] == shown[1]
    assert len(shown[0]) >= NEWEST // 4
    for work in [work for found in works for work in found]:
        assert work.indexes
        assert not work.scanned
        assert not work.sorts
    short, long = works
    if not fields.get("execution"):
        assert len(short) == len(long)
    else:
        # The place in an execution's log is found by halving: a read of one row for each time that it is twice as long.
        assert len(long) - len(short) <= (LONG // SHORT).bit_length()
    assert abs(costliest(long) - costliest(short)) <= logs.database.depth


def costliest(works: list[Work]) -> int:
    return max(work.effort for work in works)


async def test_the_logs_are_as_long_as_they_are_said_to_be(logs: Logs) -> None:
    for length, session_id in logs.sessions.items():
        session = (await logs.api.sessions.GetSession(session_pb2.GetSessionRequest(session=session_id))).session
        assert session.last_session_sequence == length
