"""A server that has a component which ends it, and that may stop in the middle of a transaction.

As a command it serves: `python faulty.py <file>`. When the file is there, the next change is not committed: the file is
removed, and the server is stopped with SIGSTOP before the commit.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import flows
import uvloop
from blobhub_server import app
from blobhub_server.config import Settings
from blobhub_server.db.postgresql import PostgresqlTransaction
from blobhub_server.workflow.components.contract import Inputs, Outcome, PortSpec, PureComponent
from blobhub_server.workflow.components.registry import ComponentRegistry


def command(freeze: Path) -> list[str]:
    """The command, for `ServerProcess`."""
    return [str(Path(__file__).resolve()), str(freeze)]


class Poison(PureComponent):
    """Notes in a file that it is evaluated; then breaks the process, or holds the event loop until that is killed."""

    type = "test.poison"
    title = "Poison"
    ports = (
        PortSpec(category="flow_input", route="in", description="Control enters here."),
        PortSpec(category="data_input", route="note", description="The file.", value_type="text", required=True),
        PortSpec(category="data_input", route="how", description="`exit` or `hang`.", value_type="text", required=True),
    )
    routes = ("success",)

    def run(self, inputs: Inputs) -> Outcome:
        with Path(inputs["note"]).open("a") as note:
            note.write(".")
        if inputs["how"] == "exit":
            os._exit(1)
        while True:
            pass


BEFORE = {
    "delay": (flows.component("before", "flow.delay", seconds=0.2), "next"),
    "script": (flows.component("before", "logic.code", code="set_result('success')"), "success"),
}
"""What may stand before the poison, with the route that leads to it."""


def poisoned(note: Path, how: str, after: str) -> str:
    """A definition that ends its server after a durable step."""
    before, route = BEFORE[after]
    return flows.document(
        [
            flows.component("start", "flow.start"),
            before,
            flows.component("poison", "test.poison", note=str(note), how=how),
            flows.component("end", "flow.end"),
        ],
        [
            flows.control("start", "before"),
            flows.control("before", "poison", route),
            flows.control("poison", "end", "success"),
        ],
    )


def freeze_when_there_is(file: Path) -> None:
    """Stop this process before it commits the next change, once there is the file."""
    commit = PostgresqlTransaction.commit

    async def commit_later(self: PostgresqlTransaction) -> None:
        if self._hooks and file.exists():  # A lease is renewed in a transaction without hooks.
            file.unlink()
            os.kill(os.getpid(), signal.SIGSTOP)
        await commit(self)

    PostgresqlTransaction.commit = commit_later


def main() -> None:
    """Serve."""
    freeze_when_there_is(Path(sys.argv[1]))
    registry = ComponentRegistry.load()
    ComponentRegistry.load = lambda: ComponentRegistry([*registry, Poison()])
    uvloop.run(app.serve(Settings()))


if __name__ == "__main__":
    main()
