"""An execution as a tree of steps, made of its events one by one. It draws nothing, and asks no clock."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from blobhub.v1.event_pb2 import Event, Failure
from blobhub_client import get_value
from google.protobuf.timestamp_pb2 import Timestamp

from blobhub_cli.plain import json_text

RUNNING, WAITING, RETRYING, DONE, FAILED = "running", "waiting", "retrying", "done", "failed"
"""What a step may be at."""
PENDING, STOPPING, COMPLETED, STOPPED = "pending", "stopping", "completed", "stopped"
"""What an execution may be at, beside `running` and `failed`.

A step is `stopped` that had not ended when its execution did."""
ENDED = (COMPLETED, FAILED, STOPPED)
MAX_SAID = 4
"""How many of the last things that a step has said are kept."""


@dataclass
class Step:
    """A component that control has reached, once."""

    number: int
    component_id: str
    name: str
    kind: str
    begun: float
    state: str = RUNNING
    ended: float = 0.0
    elapsed: float = 0.0
    route: str = ""
    attempt: int = 1
    note: str = ""
    said: list[str] = field(default_factory=list)
    unsaid: int = 0
    failure: str = ""
    children: list[Step] = field(default_factory=list)

    @property
    def is_open(self) -> bool:
        """Whether it, or anything inside it, has not ended."""
        return self.state not in (DONE, FAILED, STOPPED) or any(child.is_open for child in self.children)

    def say(self, text: str) -> None:
        """Keep what it says; of much, the end."""
        self.said.append(text)
        if len(self.said) > MAX_SAID:
            del self.said[0]
            self.unsaid += 1


@dataclass
class RunTree:
    """An execution, as far as its events have been seen."""

    title: str
    execution_id: str
    state: str = PENDING
    begun: float = 0.0
    ended: float = 0.0
    failure: str = ""
    result: str = ""
    steps: list[Step] = field(default_factory=list)
    count: int = 0
    _by_number: dict[int, Step] = field(default_factory=dict)
    _latest: dict[str, Step] = field(default_factory=dict)

    def apply(self, event: Event) -> None:
        """Take in an event. One of a kind that is not known here changes nothing."""
        payload = event.WhichOneof("payload") or ""
        when = seconds(event.create_time)
        if payload.startswith("flow_"):
            self._flow(payload, event, when)
        elif payload == "processor_entered":
            self._enter(event, when)
        elif step := self._by_number.get(event.processor.step):
            _change(step, payload, event, when)

    def _flow(self, payload: str, event: Event, when: float) -> None:
        if payload == "flow_entered":
            self.state, self.begun = RUNNING, when
        elif payload == "flow_stopping":
            self.state = STOPPING
        elif payload == "flow_exited":
            self.state, self.ended = COMPLETED, when
            exited = event.flow_exited
            if exited.HasField("result") or exited.result_json:
                self.result = json_text(get_value(exited, "result"), indent=2)
        elif payload == "flow_error":
            self.state, self.ended, self.failure = FAILED, when, failure_text(event.flow_error.failure)
        elif payload == "flow_stopped":
            self.state, self.ended = STOPPED, when
        if self.state in ENDED:
            for step in all_steps(self.steps):
                if step.state not in (DONE, FAILED):
                    step.state, step.ended, step.note = STOPPED, when, ""

    def _enter(self, event: Event, when: float) -> None:
        about = event.processor
        if known := self._by_number.get(about.step):
            known.state, known.attempt, known.note = RUNNING, event.processor_entered.attempt, ""
            return
        step = Step(
            number=about.step,
            component_id=about.processor_id,
            name=about.processor_name or about.processor_id,
            kind=about.processor_type,
            begun=when,
            attempt=event.processor_entered.attempt,
        )
        scope = self._latest.get(about.scope_path[-1]) if about.scope_path else None
        (scope.children if scope else self.steps).append(step)
        self._by_number[step.number] = self._latest[step.component_id] = step
        self.count += 1


def _change(step: Step, payload: str, event: Event, when: float) -> None:
    """What an event that is neither the first nor of the whole execution does to a step."""
    if payload == "processor_exited":
        exited = event.processor_exited
        step.state, step.ended, step.route, step.note = DONE, when, exited.route, ""
        step.elapsed = exited.elapsed.ToTimedelta().total_seconds()
    elif payload == "processor_error":
        step.state, step.ended, step.failure, step.note = FAILED, when, failure_text(event.processor_error.failure), ""
    elif payload == "processor_retrying":
        retrying = event.processor_retrying
        step.state, step.note = RETRYING, f"attempt {retrying.attempt} is next, after {failure_text(retrying.failure)}"
    elif payload == "processor_waiting":
        step.state, step.note = WAITING, waiting_text(event)
    elif payload in ("processor_output", "session_object_modified", "session_object_deleted"):
        step.say(said_text(event))


def said_text(event: Event) -> str:
    """What a component says, prints or writes."""
    payload = event.WhichOneof("payload")
    if payload == "processor_output":
        output = event.processor_output
        return output.printed.rstrip("\n") or json_text(get_value(output))
    if payload == "session_object_modified":
        return f"wrote {event.session_object_modified.alias} ({event.session_object_modified.object_type})"
    return f"deleted {event.session_object_deleted.alias}" if payload == "session_object_deleted" else ""


def waiting_text(event: Event) -> str:
    """What a component waits for."""
    waiting = event.processor_waiting
    for_signal = f"for the signal {' '.join(filter(None, (waiting.signal.name, waiting.signal.key)))}"
    parts = [for_signal] if waiting.HasField("signal") else []
    if waiting.HasField("wake_time"):
        parts.append(f"until {waiting.wake_time.ToDatetime():%Y-%m-%d %H:%M:%SZ}")
    return " ".join(["waits", *parts])


def failure_text(failure: Failure) -> str:
    """Why something failed, and where."""
    return f"{failure.reason}: {failure.message}" + (f" (line {failure.line})" if failure.line else "")


def seconds(time: Timestamp) -> float:
    """A time as seconds."""
    return time.seconds + time.nanos / 1e9


def all_steps(steps: list[Step]) -> Iterator[Step]:
    """Steps and all that are inside them, in order."""
    for step in steps:
        yield step
        yield from all_steps(step.children)
