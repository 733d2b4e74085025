"""The runner of one execution, with a journal that takes its time."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime

import flows
import pytest
from blobhub_server.workflow.components.contract import ComponentContext, EffectComponent, Inputs, Outcome, PortSpec
from blobhub_server.workflow.components.registry import ComponentRegistry
from blobhub_server.workflow.interpreter import BUDGET, ExecutionState, Started
from blobhub_server.workflow.rules.execution import DEFAULT_STEP_LIMIT
from blobhub_server.workflow.rules.session_object import Reading
from blobhub_server.workflow.runtime.decision import Progress
from blobhub_server.workflow.runtime.embedded.runner import Runner
from blobhub_server.workflow.runtime.embedded.runner_context import RunnerContext
from blobhub_server.workflow.runtime.embedded.unit import Unit
from blobhub_server.workflow.runtime.performer import Performer
from interpreting import EXECUTION, REGISTRY, compiled


class SlowJournal:
    """Says when a commit has begun, and commits when it may."""

    def __init__(self) -> None:
        self.begun, self.may_commit = asyncio.Event(), asyncio.Event()

    async def append(self, unit: Unit) -> None:
        self.begun.set()
        await self.may_commit.wait()
        await asyncio.sleep(0)  # a commit lets others go on
        unit.on_commit()


class Counted(EffectComponent):
    """Notes that it was run. The one named `second` ends while what came of the first is being committed."""

    type = "test.counted"
    title = "Counted"
    ports = (
        PortSpec(category="flow_input", route="in", description="Control enters here."),
        PortSpec(category="data_input", route="name", description="Its name.", value_type="text"),
    )
    routes = ("success",)

    def __init__(self, journal: SlowJournal, runs: list[str]) -> None:
        self._journal = journal
        self._runs = runs

    async def run(self, inputs: Inputs, context: ComponentContext) -> Outcome:
        self._runs.append(inputs["name"])
        if inputs["name"] == "second":
            await self._journal.begun.wait()
        return Outcome(route="success")


@pytest.mark.parametrize("begun", [True, False], ids=["in a commit", "in the queue"])
async def test_who_waits_for_an_execution_is_told_when_it_is_abandoned(begun: bool) -> None:
    journal = SlowJournal()
    graph = compiled(flows.steps(1), REGISTRY)
    around = RunnerContext(db=None, journal=journal, clock=lambda: datetime.now(UTC), performer=Performer(None))
    execution = replace(EXECUTION, state="pending")
    runner = Runner(
        around, graph, Progress(execution, ExecutionState(step_limit=DEFAULT_STEP_LIMIT)), lambda _: None, lambda *_: None
    )
    waiting = asyncio.create_task(runner.post_and_wait(Started({})))
    await asyncio.sleep(0)
    if begun:
        await journal.begun.wait()
    runner.abandon()
    async with asyncio.timeout(60):
        await waiting


async def test_a_step_that_ends_during_a_commit_is_not_run_again() -> None:
    journal, runs, ended = SlowJournal(), [], asyncio.Event()
    document = flows.document(
        [
            flows.component("start", "flow.start"),
            flows.component("first", "test.counted", name="first"),
            flows.component("second", "test.counted", name="second"),
        ],
        [flows.control("start", "first"), flows.control("start", "second")],
    )
    graph = compiled(document, ComponentRegistry([*REGISTRY, Counted(journal, runs)]))
    around = RunnerContext(db=None, journal=journal, clock=lambda: datetime.now(UTC), performer=Performer(None))
    execution = replace(EXECUTION, state="pending")
    progress = Progress(execution, ExecutionState(step_limit=DEFAULT_STEP_LIMIT))
    runner = Runner(around, graph, progress, lambda _: ended.set(), lambda *_: ended.set())
    unit = runner.start_unit(Started({}), Reading(), limit=1, work=None, then=runner.begin, budget=BUDGET)
    unit.on_commit()
    await journal.begun.wait()
    while len(asyncio.all_tasks()) > 2:  # until the second step has ended too: what is left is this test and the commit
        await asyncio.sleep(0)
    journal.may_commit.set()
    async with asyncio.timeout(60):
        await ended.wait()
    assert runs == ["first", "second"]
    assert runner.execution.state == "completed"
    assert runner._progress.state == ExecutionState(step_limit=0), "it is in a cycle with its steps, and holds no values"
    assert not runner._underway._steps
