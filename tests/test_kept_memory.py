"""What a server keeps in memory of what is over is bounded by its bytes, however large single values are."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import flows
from blobhub.v1 import execution_pb2
from blobhub_server.db.notify import Doorbell
from blobhub_server.db.opening import open_database
from blobhub_server.workflow.definitions.examination import verdict_of
from blobhub_server.workflow.definitions.finder import CompiledDefinition, _weight
from blobhub_server.workflow.log.log import EventLog
from blobhub_server.workflow.store.event import LoggedEvent
from interpreting import compiled
from several_servers import together
from waiting import until

MIB = 1 << 20


def line(number: int, event: bytes, record: str) -> LoggedEvent:
    """The only line of an execution, in a session that has many."""
    return LoggedEvent(
        session_id="session",
        session_sequence=number,
        execution_id=f"execution {number}",
        execution_sequence=1,
        type="flow.exited",
        create_time=datetime(2026, 1, 1, tzinfo=UTC),
        event=event,
        record=record,
    )


async def test_all_tails_of_logs_together_hold_a_bounded_number_of_bytes(tmp_path: Path) -> None:
    db = await open_database(f"sqlite:///{tmp_path / 'blobhub.db'}")
    log = EventLog(db, Doorbell(db))
    for number in range(1, 101):
        log.publish([line(number, bytes(MIB), "x" * MIB)])
        if number % 10 == 0:
            assert len(await log.read_execution("execution 1", 0, ("", ""))) == 1, "what is read stays"
    lines = [line for tail in log._tails.values() for line in tail.lines]
    assert sum(len(line.event) + len(line.record or "") for line in lines) <= 16 * MIB
    assert len(await log.read_execution("execution 100", 0, ("", ""))) == 1
    assert len(await log.read_session("session", 99, ("", ""))) == 1
    assert log._read_tail("execution 2", 0) is None, "the tail that was not used for longest is gone"
    log.drop_tails()
    log.publish([line(101, bytes(MIB), "")])
    assert log._size == sum(tail.size for tail in log._tails.values())
    await db.close()


async def test_all_tails_of_logs_together_have_a_bounded_number_of_lines_however_short(tmp_path: Path) -> None:
    db = await open_database(f"sqlite:///{tmp_path / 'blobhub.db'}")
    log = EventLog(db, Doorbell(db))
    log.publish([line(number, b"", "") for number in range(1, 30_001)])
    assert 1_000 < sum(len(tail.lines) for tail in log._tails.values()) <= 16_384
    await db.close()


def test_a_short_definition_counts_by_its_components_and_those_without_a_policy_share_one() -> None:
    graph = compiled(flows.steps(500))
    nodes = list(graph.components.values())
    assert _weight(CompiledDefinition(verdict=verdict_of([]), graph=graph), b"") >= 512 * len(nodes)
    assert len({id(node.policy) for node in nodes}) == 1


async def test_the_results_of_executions_that_have_ended_are_kept_in_a_bounded_number_of_bytes(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'blobhub.db'}"
    components = [
        flows.component("start", "flow.start"),
        flows.value("v", "v", persistence="execution"),
        flows.component("end", "flow.end"),
    ]
    document = flows.document(components, [flows.control("start", "end"), flows.data("v", "value", "end", "value")])
    given = execution_pb2.ExecutionInput(alias="v", value_json=json.dumps("x" * 1_000_000))
    async with together(tmp_path, url, count=1) as ((opened, api),):
        session_id = await api.session(document)
        spec = execution_pb2.ExecutionSpec(definition="workflow", input_data=[given])
        request = execution_pb2.RunExecutionRequest(session=session_id, spec=spec)
        results = [[message async for message in api.executions.RunExecution(request)][-1].execution for _ in range(20)]
        assert all(len(result.result.string_value) == 1_000_000 for result in results)
        runners = opened.runtime._runners
        await until(lambda: not runners.running)
        kept = [execution for result in results if (execution := runners.find(result.id)) is not None]
        assert kept[-1].id == results[-1].id
        assert sum(len(execution.result or b"") for execution in kept) <= 16 * MIB
