"""Workflows that real people run, as definitions in `workflows/`: they end as they should, on both databases."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import flows
import pytest
import runs
from blobhub.v1 import execution_pb2
from blobhub_server.workflow.components.contract import ComponentError, Outcome
from blobhub_server.workflow.definitions.check import check
from blobhub_server.workflow.definitions.reader import parse
from calling import ask
from google.protobuf import json_format
from interpreting import REGISTRY
from scoping import Played, controls, datas, inside, script
from served import Api
from waiting import until

WORKFLOWS = Path(__file__).parent / "workflows"
NAMES = sorted(path.stem for path in WORKFLOWS.glob("*.json"))


def workflow(name: str) -> str:
    return (WORKFLOWS / f"{name}.json").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", NAMES)
def test_check_finds_nothing(name: str) -> None:
    assert check(parse(workflow(name).encode()), REGISTRY) == []


async def run(api: Api, session: str, **inputs: Any) -> tuple[Any, str]:
    """Run a workflow; its result, and the reason of its failure."""
    ended = await runs.run(api, session, **inputs)
    result = json_format.MessageToDict(ended.result) if ended.HasField("result") else None
    return result, ended.failure.reason


async def test_a_trip_is_booked_as_a_whole_or_undone_newest_first_and_fails_for_its_reason(api: Api) -> None:
    session = await api.session(workflow("trip_saga"))
    assert await run(api, session) == (["car-1", "hotel-1", "flight-1"], "")
    assert await run(api, session, declined="car") == (None, "DECLINED")
    assert not (await ask(api, "ListSessionObjects", session=session)).session_objects
    assert await run(api, session, declined="flight") == (None, "DECLINED")
    undone = (await ask(api, "GetSessionObject", session=session, alias="undone")).session_object
    assert json_format.MessageToDict(undone.value) == ["hotel-1", "car-1"]


def test_undoing_a_booking_is_tried_until_it_works() -> None:
    booked, broken = Outcome(route="success", outputs={"id": "one"}), ComponentError("away", reason="SCRIPT_ERROR")
    undone = Outcome(route="success", outputs={"undone": "one"})
    run = Played(workflow("trip_saga"))
    run.play(car=booked, hotel=booked, flight=Outcome(route="declined"), undo=[*[broken] * 20, undone])
    assert (run.entered.count("undo"), run.types.count("processor.retrying")) == (2, 20)
    assert (run.types[-1], run.state.error["reason"]) == ("flow.error", "DECLINED")


async def test_where_one_of_three_is_lost_all_are_done_again_and_lost_rounds_do_not_count(api: Api) -> None:
    session = await api.session(workflow("all_or_again"))
    for lost in (0, 2):
        result, _ = await run(api, session, lost_rounds=lost)
        assert result == [f"{name} in round {lost + 1}" for name in ("one", "two", "three")]
    assert (await run(api, session, lost_rounds=3))[1] == "SCRIPT_ERROR"


@pytest.mark.either_database
async def test_a_stop_cancels_the_body_of_a_scope_and_runs_what_is_last_in_it(api: Api) -> None:
    parts = [flows.component("start", "flow.start"), flows.component("try", "flow.try")]
    parts += inside("try", script("work", code="while True: pass"), script("clean", code="set_data_output('n', 'tidy')"))
    parts += [flows.value("kept", "kept", persistence="session")]
    ways = controls("start.next try", "try.body work", "try.finally clean")
    session = await api.session(flows.document(parts, ways + datas("clean.n kept.value")))
    execution = (await ask(api, "StartExecution", session=session, spec={"definition": "workflow"})).execution
    await ask(api, "StopExecution", execution=execution.id)

    async def ended() -> bool:
        found = (await ask(api, "GetExecution", execution=execution.id)).execution
        return found.state == execution_pb2.EXECUTION_STATE_STOPPED

    await until(ended)
    kept = (await ask(api, "GetSessionObject", session=session, alias="kept")).session_object
    assert json_format.MessageToDict(kept.value) == "tidy"
