"""The picture of a running execution: a line for each step, as many as there is room for, and events as lines for a pipe."""

from __future__ import annotations

from collections.abc import Iterator

from blobhub.v1.event_pb2 import Event
from rich.console import Group
from rich.text import Text

from blobhub_cli import tree
from blobhub_cli.output import harmless
from blobhub_cli.plain import duration_text
from blobhub_cli.tree import RunTree, Step, failure_text, said_text, waiting_text

MARKS = {
    tree.RUNNING: ("▸", "cyan"),
    tree.WAITING: ("◷", "yellow"),
    tree.RETRYING: ("↻", "yellow"),
    tree.DONE: ("✔", "green"),
    tree.FAILED: ("✘", "red"),
    tree.STOPPED: ("■", "yellow"),
}
OUTCOMES = {tree.COMPLETED: "bold green", tree.FAILED: "bold red", tree.STOPPED: "bold yellow"}
TYPE_WIDTH = 20
NAME_WIDTH = 24


def picture(shown: RunTree, now: float, room: int) -> Group:
    """The tree in so many lines; where there is less room, steps that have ended go first, the oldest ones above all.

    `now` is the time of the server, which those that run are measured against.
    """
    blocks = [(step.is_open, _block(step, now)) for step in shown.steps]
    total = sum(len(lines) for _, lines in blocks)
    kept: list[list[Text]] = []
    for is_open, lines in blocks:
        if not is_open and total > room - 2:
            total -= len(lines)
        else:
            kept.append(lines)
    drawn = []
    if left_out := len(blocks) - len(kept):
        drawn.append(Text(f"├─ … {left_out} earlier steps", style="dim"))
    for number, lines in enumerate(kept, start=1):
        drawn += _guided(lines, is_last=number == len(kept))
    drawn = [_title(shown, now), *drawn[-(room - 1) :]]
    for line in drawn:
        line.no_wrap, line.overflow = True, "ellipsis"
    return Group(*drawn)


def _title(shown: RunTree, now: float) -> Text:
    took = (shown.ended or now) - shown.begun if shown.begun else 0.0
    text = Text(harmless(shown.title), style="bold")
    text.append(f"  {shown.state}", style=OUTCOMES.get(shown.state, "bold cyan"))
    if shown.begun:
        text.append(f"  {duration_text(max(took, 0.0))}, {shown.count} steps", style="dim")
    return text


def _block(step: Step, now: float) -> list[Text]:
    """The lines of a step: its own, what it said, and those of the steps inside it."""
    mark, style = MARKS[step.state]
    line = Text.assemble((f"{mark} ", style), harmless(step.name))
    if step.route:
        line.append(f" → {harmless(step.route)}", style="dim")
    if took := _took(step, now):
        line.append(f"  {took}", style="dim")
    if step.attempt > 1:
        line.append(f"  attempt {step.attempt}", style="yellow")
    if step.note:
        line.append(f"  {harmless(step.note)}", style="yellow")
    lines = [line]
    guide = "│  " if step.children else "   "
    for said, said_style in _details(step):
        lines += [Text(guide, style="dim") + Text(harmless(each), style=said_style) for each in said.split("\n")]
    for number, child in enumerate(step.children, start=1):
        lines += _guided(_block(child, now), is_last=number == len(step.children))
    return lines


def _details(step: Step) -> Iterator[tuple[str, str]]:
    """What stands below a step, and how it looks."""
    if step.failure:
        yield step.failure, "red"
    if step.unsaid:
        yield f"… {step.unsaid} more before", "dim"
    for said in step.said:
        yield said, "italic"


def _guided(lines: list[Text], *, is_last: bool) -> list[Text]:
    """The lines of a block, hung on the line that leads down from what it is in."""
    first, *rest = lines
    begin, go_on = ("└─ ", "   ") if is_last else ("├─ ", "│  ")
    return [Text(begin, style="dim") + first, *(Text(go_on, style="dim") + line for line in rest)]


def _took(step: Step, now: float) -> str:
    """How long a step took, or has taken until now; nothing for one that was evaluated in place."""
    if step.state in (tree.DONE, tree.FAILED):
        return duration_text(step.elapsed) if step.elapsed else ""
    return duration_text(max((step.ended or now) - step.begun, 0.0))


def event_line(event: Event) -> Text:
    """An event on a line of its own."""
    when = event.create_time.ToDatetime().strftime("%H:%M:%S.%f")[:-3]
    name = event.processor.processor_name or event.processor.processor_id
    sequence = event.execution_sequence or event.session_sequence
    style = "red" if event.type.endswith("error") else "cyan" if event.type.startswith("flow") else ""
    return Text.assemble(
        f"{when} {sequence:>4}  ",
        (event.type.ljust(TYPE_WIDTH), style),
        f"  {harmless(name):<{NAME_WIDTH}}  ",
        harmless(particulars(event)).replace("\n", " ⏎ "),
    )


def particulars(event: Event) -> str:
    """What an event has to say beyond its type."""
    payload = event.WhichOneof("payload")
    if payload == "processor_exited":
        elapsed = event.processor_exited.elapsed.ToTimedelta().total_seconds()
        return f"→ {event.processor_exited.route}" + (f"  {duration_text(elapsed)}" if elapsed else "")
    if payload in ("flow_error", "processor_error"):
        return failure_text(getattr(event, payload).failure)
    if payload == "processor_retrying":
        return failure_text(event.processor_retrying.failure)
    if payload == "processor_waiting":
        return waiting_text(event)
    return f"{event.flow_exited.steps} steps" if payload == "flow_exited" else said_text(event)
