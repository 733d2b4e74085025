"""The picture of an execution: what it shows of each step, and that it has room for what matters, however many there are."""

from __future__ import annotations

import io
from typing import Any

from blobhub.v1.event_pb2 import Event
from blobhub_cli.picture import event_line, picture
from blobhub_cli.tree import RunTree
from rich.console import Console
from scale import scaled


class Log:
    """Events of an execution, a second after each other."""

    def __init__(self) -> None:
        self.tree = RunTree(title="orders", execution_id="1")
        self.count = 0

    def add(self, payload: str, step: int = 0, name: str = "", scope: tuple[str, ...] = (), **fields: Any) -> Event:
        self.count += 1
        event = Event(execution_sequence=self.count, type=payload.replace("_", ".", 1))
        event.create_time.FromSeconds(1_800_000_000 + self.count)
        if step:
            event.processor.processor_id = event.processor.processor_name = name
            event.processor.step = step
            event.processor.scope_path.extend(scope)
        getattr(event, payload).SetInParent()
        for field, value in fields.items():
            about = getattr(event, payload)
            if isinstance(value, dict):
                getattr(about, field).MergeFrom(type(getattr(about, field))(**value))
            else:
                setattr(about, field, value)
        self.tree.apply(event)
        return event

    def drawn(self, room: int = 40) -> list[str]:
        """The lines of the picture, a second after the last event."""
        file = io.StringIO()
        now = 1_800_000_000 + self.count + 1
        Console(file=file, width=100, force_terminal=False).print(picture(self.tree, now, room))
        return [line.rstrip() for line in file.getvalue().splitlines()]


def test_steps_hang_below_the_scope_they_are_in_with_what_they_say_and_wait_for() -> None:
    log = Log()
    log.add("flow_entered")
    log.add("processor_entered", 1, "each", attempt=1)
    log.add("processor_entered", 2, "charge", ("each",), attempt=1)
    log.add("processor_output", 2, "charge", ("each",), printed="one\ntwo\n")
    failure = {"reason": "HTTP_STATUS", "message": "503", "line": 2}
    log.add("processor_retrying", 2, "charge", ("each",), attempt=2, failure=failure)
    log.add("processor_entered", 3, "wait", ("each",), attempt=1)
    log.add("processor_waiting", 3, "wait", ("each",), signal={"name": "paid", "key": "7"})
    assert log.drawn() == [
        "orders  running  7.0 s, 3 steps",
        "└─ ▸ each  6.0 s",
        "   ├─ ↻ charge  5.0 s  attempt 2 is next, after HTTP_STATUS: 503 (line 2)",
        "   │     one",
        "   │     two",
        "   └─ ◷ wait  2.0 s  waits for the signal paid 7",
    ]
    log.add("processor_entered", 2, "charge", ("each",), attempt=2)
    log.add("processor_error", 2, "charge", ("each",), attempt=2, failure=failure)
    log.add("flow_error", failure=failure)
    assert log.drawn() == [
        "orders  failed  9.0 s, 3 steps",
        "└─ ■ each  8.0 s",
        "   ├─ ✘ charge  attempt 2",
        "   │     HTTP_STATUS: 503 (line 2)",
        "   │     one",
        "   │     two",
        "   └─ ■ wait  4.0 s",
    ]


def test_what_runs_stays_in_the_picture_when_there_are_many_steps() -> None:
    log = Log()
    log.add("flow_entered")
    log.add("processor_entered", 1, "long", attempt=1)
    count = scaled(10_000, least=1_000)
    for step in range(2, count + 2):
        log.add("processor_entered", step, f"step-{step}", attempt=1)
        log.add("processor_exited", step, f"step-{step}", route="success")
    drawn = log.drawn(room=10)
    assert len(drawn) <= 10
    assert drawn[0].endswith(f"{count + 1} steps")
    assert "earlier steps" in drawn[1]
    assert "▸ long" in drawn[2]
    assert drawn[-1] == f"└─ ✔ step-{count + 1} → success"


def test_much_that_a_step_says_is_kept_in_part_and_does_not_steer_the_terminal() -> None:
    log = Log()
    log.add("flow_entered")
    log.add("processor_entered", 1, "talk", attempt=1)
    for number in range(10):
        event = log.add("processor_output", 1, "talk", printed=f"\x1b[2Jline {number}")
    assert log.drawn()[2:] == ["      … 6 more before", *(f"      \\x1b[2Jline {number}" for number in range(6, 10))]
    assert "\x1b" not in event_line(event).plain
