"""`blobhub run`: run a stored definition, and watch it."""

from __future__ import annotations

from typing import Annotated

from blobhub.v1 import definition_pb2
from typer import Argument, Option

from blobhub_cli.command import Noun
from blobhub_cli.following import follow
from blobhub_cli.hub import Hub
from blobhub_cli.starting import (
    InputOption,
    InputsOption,
    StepLimitOption,
    TimeoutOption,
    make_spec,
    open_session,
    start,
)

noun = Noun(None, "")


@noun.command(
    "run",
    "blobhub run acme/pipeline@3/summary -i document=@README.md",
    "blobhub run summary --session acme/pipeline@3/intake -i count:=3",
    "blobhub run acme/pipeline@3/summary --detach --json",
)
async def run(
    hub: Hub,
    definition: Annotated[str, Argument(help="`acme/pipeline@3/summary` or an id; an alias, with --session.")],
    session: Annotated[str, Option("--session", help="The session to run in; a new one unless given.")] = "",
    given: InputOption = None,
    inputs: InputsOption = "",
    seconds: TimeoutOption = 0,
    step_limit: StepLimitOption = 0,
    detach: Annotated[bool, Option("--detach", "-d", help="Start it, and do not wait for its end.")] = False,
) -> int:
    """Run a definition, and show what it does while it does it.

    Ctrl-C leaves the execution running, says how to come back to it, and is exit code 130.
    """
    spec = make_spec(definition, given, inputs, seconds, step_limit)
    if not session:
        request = definition_pb2.GetDefinitionRequest(definition=definition)
        found = (await hub.call(hub.client.definitions.GetDefinition, request)).definition
        spec.definition = found.alias
        session = await open_session(hub, found.revision_id)
    execution = await start(hub, session, spec)
    if detach:
        hub.farewell = ""
        hub.out.record(execution)
        return 0
    return await follow(hub, execution)
