"""All commands, put together."""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated

import typer

from blobhub_cli.nouns import (
    audit,
    blob,
    credential,
    definition,
    execution,
    key,
    limit,
    login,
    member,
    metadata,
    model,
    operation,
    organization,
    profile,
    revision,
    run,
    schedule,
    session,
    signal,
    task,
    user,
    watch,
)

EPILOG = "Exit codes, profiles and more examples: docs/cli.md"

app = typer.Typer(name="blobhub", no_args_is_help=True, pretty_exceptions_enable=False, epilog=EPILOG)
for module in (
    *(login, run, watch, organization, blob, revision, definition, session, execution, signal, task, schedule, model),
    *(metadata, member, user, key, credential, limit, audit, operation, profile),
):
    app.add_typer(module.noun.typer)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"blobhub {version('blobhub-client')}")
        raise typer.Exit


@app.callback()
def every_command(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """BlobHub from the command line. A reference is `acme`, `acme/pipeline`, `acme/pipeline@3`, or an id."""


command = typer.main.get_command(app)
"""All of it, ready to be called."""
