"""Deciding by itself: an engine of the test's own performs what is decided, without the embedded runtime."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace

import flows
from blobhub_server.workflow.components.contract import ComponentError, Outcome
from blobhub_server.workflow.definitions.graph import Graph
from blobhub_server.workflow.interpreter import (
    BUDGET,
    Command,
    Completion,
    Continue,
    ExecutionState,
    GoOn,
    Halt,
    Happening,
    Record,
    RunStep,
    Started,
    Stopped,
    Wait,
)
from blobhub_server.workflow.rules.execution import DEFAULT_STEP_LIMIT
from blobhub_server.workflow.rules.message import Message, MessageKind
from blobhub_server.workflow.runtime.decision import Progress, happen
from interpreting import EXECUTION, compiled

MANY = [[0]] * 4_000
"""A value that takes some of a budget wherever it is gone over, though it is short as text."""
STOP = Message(execution_id="e", number=1, kind=MessageKind.STOP)


class Engine:
    """Performs one command after the other, in its own time: a component by asking `run`, a wait by letting time pass."""

    def __init__(self, graph: Graph, run: Callable[[RunStep], Outcome | ComponentError]) -> None:
        self.graph = graph
        self.run = run
        self.now = 0.0
        self.progress = Progress(replace(EXECUTION, state="pending"), ExecutionState(step_limit=DEFAULT_STEP_LIMIT))
        self.journal: list[Record] = []
        self.session: dict[str, object] = {}

    def drive(self, messages: Callable[[int], list[Message]] = lambda turn: []) -> Engine:
        """Drive the execution to its end. `messages` tells which come before which turn."""
        happenings: deque[Happening] = deque([Started({"document": "text"} if self.graph.input_aliases else {})])
        turn, commands = 0, deque[Command]()
        while happenings:
            decision = happen(
                self.graph,
                self.progress,
                [happenings.popleft()],
                now=self.now,
                session=self.session,
                messages=messages(turn),
            )
            turn += 1
            self.progress = decision.progress
            self.journal += decision.records
            self.session |= decision.objects
            commands.extend(decision.commands)
            if not happenings and commands:
                happenings.append(self._perform(commands.popleft()))
        return self

    def _perform(self, command: Command) -> Happening:
        match command:
            case RunStep():
                return Completion(step=command.step, attempt=command.attempt, result=self.run(command), elapsed=0.1)
            case Wait(until=until):
                assert until is not None
                self.now = until
                return Completion(step=command.step, attempt=command.attempt)
            case GoOn():
                return Continue()
            case Halt():
                return Stopped()


def done(_: RunStep) -> Outcome:
    return Outcome(route="success", outputs={"result": "done"})


def test_an_engine_that_performs_what_is_decided_drives_an_execution_to_its_end() -> None:
    engine = Engine(compiled(flows.MIXED), done).drive()
    execution = engine.progress.execution
    assert (execution.state, execution.result) == ("completed", b'"done"')
    assert execution.last_execution_sequence == len(engine.journal)
    assert execution.end_time is not None
    assert engine.now == 0.15


def test_a_long_loop_in_place_is_gone_on_with_turn_by_turn() -> None:
    loop = flows.document(
        [flows.component("start", "flow.start"), flows.component("loop", "logic.expression", expression="1")],
        [flows.control("start", "loop"), flows.control("loop", "loop", "success")],
    )
    engine = Engine(compiled(loop), done)
    engine.progress.state.step_limit = 1_000
    assert engine.drive().progress.execution.failure["reason"] == "STEP_LIMIT"


def test_an_attempt_that_fails_is_performed_again_when_its_time_has_come() -> None:
    policy = {"retry": {"maximum_attempts": 3, "initial_interval": "2s", "backoff_coefficient": 1.0}}
    attempts = []

    def run(command: RunStep) -> Outcome | ComponentError:
        attempts.append((command.attempt, engine.now))
        return done(command) if command.attempt == 3 else ComponentError("not yet")

    engine = Engine(compiled(flows.code("pass", policy=policy)), run)
    engine.drive()
    assert attempts == [(1, 0.0), (2, 2.0), (3, 4.0)]
    assert engine.progress.execution.state == "completed"


def test_a_stop_comes_before_whatever_happens_at_the_same_time() -> None:
    engine = Engine(compiled(flows.delay(1)), done).drive(lambda turn: [STOP] if turn == 1 else [])
    assert [record.type for record in engine.journal][-2:] == ["flow.stopping", "flow.stopped"]
    assert engine.progress.execution.last_message == 1
    assert engine.progress.execution.state == "stopped"


def test_a_decision_that_is_thrown_away_has_not_happened() -> None:
    engine = Engine(compiled(flows.delay(1)), done)
    before = replace(engine.progress.execution), engine.progress.state.copy()
    happen(engine.graph, engine.progress, [Started({})], now=0.0, session={}, messages=[STOP])
    assert (engine.progress.execution, engine.progress.state) == before


def parallel(count: int) -> Graph:
    """So many scripts at once."""
    names = [f"script-{number}" for number in range(count)]
    components = [flows.component("start", "flow.start"), flows.component("end", "flow.end")]
    components += [flows.component(name, "logic.code", code="pass") for name in names]
    connections = [flows.control("start", name) for name in names] + [
        flows.control(name, "end", "success") for name in names
    ]
    return compiled(flows.document(components, connections))


def test_a_turn_takes_in_no_more_than_its_budget_and_what_is_left_happens_in_later_ones() -> None:
    graph = parallel(40)
    decision = happen(graph, Progress(EXECUTION, ExecutionState(step_limit=1_000)), [Started({})], now=0.0, session={})
    outcome = Outcome(route="success", outputs={"result": MANY})
    left: list[Happening] = [
        Completion(step=command.step, attempt=1, result=outcome)
        for command in decision.commands
        if isinstance(command, RunStep)
    ]
    assert len(left) == 40
    taken = []
    while left:
        decision = happen(graph, decision.progress, left, now=0.0, session={})
        assert decision.taken >= 1
        taken.append(decision.taken)
        left = left[decision.taken :]
    assert max(taken) < 10
    assert decision.progress.state.phase == "completed"


def test_of_very_many_steps_that_end_at_once_a_turn_takes_in_some() -> None:
    graph, progress = parallel(500), Progress(EXECUTION, ExecutionState(step_limit=1_000))
    happening: Happening = Started({})
    commands: list[Command] = []
    while not commands or isinstance(commands[-1], GoOn):
        decision = happen(graph, progress, [happening], now=0.0, session={})
        progress, happening = decision.progress, Continue()
        commands += decision.commands
    left = [Completion(step=step, attempt=1, result=Outcome(route="success")) for step in progress.state.open]
    assert len(left) == 500
    turns = 0
    while left:
        decision = happen(graph, progress, left, now=0.0, session={})
        assert 1 <= decision.taken <= BUDGET
        progress, left, turns = decision.progress, left[decision.taken :], turns + 1
    assert turns >= 3


def test_all_messages_are_taken_in_whatever_the_budget_is() -> None:
    graph = parallel(2)
    begun = happen(graph, Progress(EXECUTION, ExecutionState(step_limit=1_000)), [Started({})], now=0.0, session={})
    outcome = Outcome(route="success", outputs={"result": MANY})
    completions = [Completion(step=step, attempt=1, result=outcome) for step in (2, 3)]
    stopped = happen(graph, begun.progress, completions, now=0.0, session={}, messages=[STOP], budget=1)
    assert (stopped.messages, stopped.progress.state.phase) == (1, "stopping")
    few = happen(graph, begun.progress, completions, now=0.0, session={}, budget=1)
    assert few.taken == 1
    # Without a budget nothing is evaluated, and all is taken in: so is what has happened before a recovery.
    assert happen(graph, begun.progress, completions, now=0.0, session={}, budget=0).taken == 2
