"""Following an execution to its end: a live picture in a terminal, lines in a pipe, JSON for programs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from blobhub.v1.execution_pb2 import Execution
from rich.live import Live

from blobhub_cli import tree
from blobhub_cli.failures import ExitCode
from blobhub_cli.hub import Hub
from blobhub_cli.picture import event_line, picture
from blobhub_cli.plain import plain
from blobhub_cli.tree import RunTree

REFRESH_SECONDS = 0.1
LINES_AROUND = 3
"""Lines of the terminal that the picture leaves free while it is drawn again and again."""
MAX_LINES = 400
"""What is left standing in the end."""
EXIT_CODES = {tree.COMPLETED: ExitCode.DONE, tree.FAILED: ExitCode.FAILED, tree.STOPPED: ExitCode.STOPPED}


async def follow(hub: Hub, execution: Execution, *, replay_only: bool = False) -> ExitCode:
    """Show an execution from its beginning to its end, and how it ended; that is the exit code, too."""
    shown = RunTree(title=execution.definition_alias or "execution", execution_id=execution.id)
    hub.farewell = farewell(execution.id)
    events = hub.client.watch_execution(execution.id, replay_only=replay_only)
    if hub.out.as_json:
        async for event in events:
            shown.apply(event)
            hub.out.json(plain(event))
    elif hub.out.is_live:
        async with _live(hub, shown):
            async for event in events:
                shown.apply(event)
    else:
        async for event in events:
            shown.apply(event)
            hub.out.console.print(event_line(event), soft_wrap=True)
    hub.farewell = ""
    tell_outcome(hub, shown)
    return EXIT_CODES.get(shown.state, ExitCode.DONE)


@asynccontextmanager
async def _live(hub: Hub, shown: RunTree) -> AsyncIterator[None]:
    """Draw a tree again and again while it grows, and leave all of it standing in the end."""
    console = hub.out.console

    def draw(room: int) -> None:
        live.update(picture(shown, time.time(), room), refresh=True)

    async def keep_drawing() -> None:
        while True:
            draw(max(console.height - LINES_AROUND, 5))
            await asyncio.sleep(REFRESH_SECONDS)

    with Live(console=console, auto_refresh=False, vertical_overflow="crop") as live:
        drawing = asyncio.create_task(keep_drawing())
        try:
            yield
        finally:
            drawing.cancel()
            live.vertical_overflow = "visible"
            draw(MAX_LINES)


def tell_outcome(hub: Hub, shown: RunTree) -> None:
    """Say what came of it, and how to see it again; with `--json` the last event has said it."""
    out = hub.out
    if shown.failure:
        out.line(shown.failure, "red")
    if shown.result:
        out.line(shown.result)
    if shown.state in tree.ENDED:
        out.note(f"{shown.state}: blobhub execution show {shown.execution_id}")
    else:
        out.note(f"{shown.state}: blobhub execution watch {shown.execution_id}")


def farewell(execution_id: str) -> str:
    """What is said when whoever watches leaves."""
    return (
        f"blobhub: interrupted; the execution {execution_id} goes on.\n"
        f"  come back to it:  blobhub execution watch {execution_id}\n"
        f"  stop it:          blobhub execution stop {execution_id}"
    )
