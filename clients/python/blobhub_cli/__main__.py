"""The script `blobhub`."""

from __future__ import annotations

import sys
from importlib.util import find_spec

MISSING = "blobhub: the command line is an extra of the client: pip install 'blobhub-client[cli]'"


def main() -> None:
    """Run the command line, if what it needs is installed."""
    if not (find_spec("typer") and find_spec("rich")):
        sys.exit(MISSING)
    from blobhub_cli.app import command  # noqa: PLC0415  it needs the extra

    command()


if __name__ == "__main__":
    main()
