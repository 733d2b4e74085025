"""What all commands do alike: their options, the connection, `--json`, errors, exit codes, examples in `--help`."""

from __future__ import annotations

import asyncio
import inspect
import os
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from blobhub_cli.failures import ExitCode, explain
from blobhub_cli.hub import Hub, open_hub
from blobhub_cli.output import Output
from blobhub_cli.profiles import choose

EVERYWHERE = "For every command"
INTERRUPTED = "blobhub: interrupted"

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, one object a line.", rich_help_panel=EVERYWHERE)]
ProfileOption = Annotated[
    str, typer.Option("--profile", help="The profile to use; see `blobhub profile`.", rich_help_panel=EVERYWHERE)
]
AddressOption = Annotated[
    str,
    typer.Option("--address", help="The server, as HOST:PORT, or https://HOST:PORT for TLS.", rich_help_panel=EVERYWHERE),
]
OPTIONS = [
    inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)
    for name, annotation, default in (
        ("as_json", JsonOption, False),
        ("profile_name", ProfileOption, ""),
        ("server_address", AddressOption, ""),
    )
]

LimitOption = Annotated[int, typer.Option("--limit", "-n", min=0, help="How many to show; 0 for all.")]
EtagOption = Annotated[str, typer.Option("--etag", help="Refuse if it was changed since this etag was read.")]
CascadeOption = Annotated[bool, typer.Option("--cascade", help="Delete it with all that it holds.")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]

Code = int | None
Connected = Callable[..., Awaitable[Code]]
Local = Callable[..., Code]


@dataclass(frozen=True)
class Shared:
    """What every command is told."""

    out: Output
    profile: str
    address: str
    command: str
    """The words that led to the command: `blobhub blob create`."""


class Noun:
    """The commands of a noun. Each is a function of a hub, or of what is shared alone, and of what is given to it."""

    def __init__(self, name: str | None, about: str) -> None:
        self.typer = typer.Typer(name=name, help=about, no_args_is_help=True)

    def command(self, name: str, *examples: str) -> Callable[[Connected], Connected]:
        """A command that needs a server; it answers an exit code, if that is not 0."""

        def register(function: Connected) -> Connected:
            self._register(name, function, examples, _run_connected)
            return function

        return register

    def local(self, name: str, *examples: str) -> Callable[[Local], Local]:
        """A command that needs none."""

        def register(function: Local) -> Local:
            self._register(name, function, examples, _run_local)
            return function

        return register

    def _register(
        self,
        name: str,
        function: Callable[..., Any],
        examples: Sequence[str],
        run: Callable[[Callable[..., Any], Shared, dict[str, Any]], Code],
    ) -> None:
        """Give typer a function with the parameters of the command, and those that every command has."""

        def invoke(context: typer.Context, **given: Any) -> None:
            out = Output(as_json=given.pop("as_json"))
            profile, address = given.pop("profile_name"), given.pop("server_address")
            if code := run(function, Shared(out=out, profile=profile, address=address, command=context.command_path), given):
                raise typer.Exit(code)

        _, *own = inspect.signature(function, eval_str=True).parameters.values()
        parameters = [
            inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context),
            *(each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in own),
            *OPTIONS,
        ]
        invoke.__doc__ = function.__doc__
        invoke.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        invoke.__annotations__ = {each.name: each.annotation for each in parameters}
        epilog = "\n\n".join(["Examples:", *(f"  {example}" for example in examples)])
        self.typer.command(name, epilog=epilog)(invoke)


def _run_local(function: Local, shared: Shared, given: dict[str, Any]) -> Code:
    return _guarded(shared, lambda: function(shared, **given))


def _run_connected(function: Connected, shared: Shared, given: dict[str, Any]) -> Code:
    """Run a command on a connection, to its exit code."""
    hubs: list[Hub] = []

    async def connected() -> Code:
        async with open_hub(choose(shared.profile, shared.address, os.environ), shared.out) as hub:
            hubs.append(hub)
            return await function(hub, **given)

    try:
        return _guarded(shared, lambda: asyncio.run(connected()))
    except KeyboardInterrupt:
        said = hubs[0].farewell if hubs else ""
        shared.out.error_lines([(line, "") for line in (said or INTERRUPTED).splitlines()])
        return ExitCode.INTERRUPTED


def _guarded(shared: Shared, work: Callable[[], Code]) -> Code:
    """What a command answers; what stands in its way is printed, and is its exit code."""
    try:
        return work()
    except (typer.Exit, typer.Abort, BrokenPipeError):
        raise
    except Exception as error:  # `explain` raises those that it does not expect
        problem = explain(error, shared.command)
        if shared.out.as_json:
            shared.out.json_error(problem.plain())
        else:
            shared.out.error_lines(problem.lines())
        return problem.code
