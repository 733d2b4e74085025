"""`blobhub-server`: the commands."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from pydantic import ValidationError

commands = typer.Typer(
    name="blobhub-server",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _print_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version  # noqa: PLC0415  so that --help is quick

        typer.echo(f"blobhub-server {version('blobhub-server')}")
        raise typer.Exit


@commands.callback()
def every_command(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """BlobHub's server. Settings are read from BLOBHUB_* in the environment."""
    # Whatever is made, the database and objects above all, is for its user alone.
    os.umask(0o077)


@commands.command()
def serve() -> None:
    """Serve until SIGTERM or SIGINT. The first start makes an administrator and prints the key once."""
    import uvloop  # noqa: PLC0415  so that --help is quick

    from blobhub_server import app  # noqa: PLC0415  so that --help is quick
    from blobhub_server.config import Settings  # noqa: PLC0415  so that --help is quick

    uvloop.run(app.serve(Settings()))


@commands.command()
def migrate() -> None:
    """Bring the database up to date, and say so. `serve` does it as well."""
    import asyncio  # noqa: PLC0415  so that --help is quick

    from blobhub_server.blobtypes.registry import BlobTypes  # noqa: PLC0415  so that --help is quick
    from blobhub_server.config import Settings  # noqa: PLC0415  so that --help is quick
    from blobhub_server.db.migrations import PLATFORM, migrate_alone  # noqa: PLC0415  so that --help is quick

    chains = BlobTypes.load().chains()
    asyncio.run(migrate_alone(Settings().url, chains))
    for chain in (PLATFORM, *chains):
        typer.echo(f"{chain.name} is at migration {chain.head or 'none'}")


@commands.command("make-key")
def make_key() -> None:
    """Print a new well-formed key, for BLOBHUB_ADMIN_KEY."""
    from blobhub_server.platform.rules.api_key import make_secret  # noqa: PLC0415  so that --help is quick

    typer.echo(make_secret(os.urandom))


@commands.command("rotate-master-key")
def rotate_master_key() -> None:
    """Bring all credentials under a new master key; see docs/credentials.md. Can be run again when it was interrupted."""
    import asyncio  # noqa: PLC0415  so that --help is quick

    from blobhub_server.config import Settings  # noqa: PLC0415  so that --help is quick
    from blobhub_server.platform.sealing.rotation import rotate  # noqa: PLC0415  so that --help is quick

    for line in asyncio.run(rotate(Settings(), os.urandom)):
        typer.echo(line)


@commands.command()
def doctor() -> None:
    """Check all that a server needs, one line each; exit with 1 when anything fails. A server may be running."""
    import asyncio  # noqa: PLC0415  so that --help is quick

    from pydantic import ValidationError  # noqa: PLC0415  so that --help is quick

    from blobhub_server.blobtypes.registry import BlobTypes  # noqa: PLC0415  so that --help is quick
    from blobhub_server.clock import utc_now  # noqa: PLC0415  so that --help is quick
    from blobhub_server.config import Settings  # noqa: PLC0415  so that --help is quick
    from blobhub_server.doctor import FAIL, Finding, Installation, examine  # noqa: PLC0415  so that --help is quick
    from blobhub_server.start import StartError  # noqa: PLC0415  so that --help is quick

    async def run() -> bool:
        failed, installation = False, Installation(settings=Settings(), types=BlobTypes.load(), clock=utc_now)
        async for finding in examine(installation):
            typer.echo(finding)
            failed |= finding.verdict == FAIL
        return failed

    try:
        failed = asyncio.run(run())
    except ValidationError as error:
        typer.echo(Finding(verdict=FAIL, check="configuration", detail=_wrong(error)))
        failed = True
    except StartError as error:
        typer.echo(Finding(verdict=FAIL, check="blob types", detail=str(error)))
        failed = True
    # Threads of the script workers' runtime release Python objects a moment after the last check. An ordinary exit of Python
    # in that moment aborts (pydantic-monty 1.4, about one time in ten).
    sys.stdout.flush()
    os._exit(failed)


def main() -> None:
    """Run a command. What keeps it from its work, such as a wrong setting or a full disk, is printed as one line."""
    from pydantic import ValidationError  # noqa: PLC0415  so that --help is quick

    from blobhub_server.errors import StorageUnavailable  # noqa: PLC0415  so that --help is quick
    from blobhub_server.start import StartError  # noqa: PLC0415  so that --help is quick

    try:
        commands()
    except StartError as error:
        sys.exit(f"blobhub-server: {error}")
    except StorageUnavailable as error:
        why = str(error.__cause__ or "").partition("\n")[0]
        sys.exit(f"blobhub-server: {error}: {why}" if why else f"blobhub-server: {error}")
    except OSError as error:
        sys.exit(f"blobhub-server: {error}")
    except ValidationError as error:
        sys.exit(f"blobhub-server: {_wrong(error)}")


def _wrong(error: ValidationError) -> str:
    """The settings that are wrong and why, without their values, which may be secret."""
    from blobhub_server.config import variable  # noqa: PLC0415  so that --help is quick

    # What concerns several settings at once has no place: a validator of the whole model has found it.
    wrong = [
        (variable(str(item["loc"][0])) if item["loc"] else "", item["msg"].removeprefix("Value error, "))
        for item in error.errors()
    ]
    return "; ".join(f"{name}: {message}" if name else message for name, message in wrong)


if __name__ == "__main__":
    main()
