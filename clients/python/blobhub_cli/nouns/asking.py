"""What a person is asked before something is gone, and what must not stand on a command line."""

from __future__ import annotations

import sys

import typer

from blobhub_cli.failures import CommandError


def confirm_cascade(what: str, *, cascade: bool, yes: bool) -> None:
    """Ask before something is deleted with all that it holds. Raises CommandError where nobody can be asked."""
    if not cascade or yes:
        return
    if not sys.stdin.isatty():
        raise CommandError(f"the {what} would be deleted with all that it holds", next_step="say so: --yes")
    typer.confirm(f"Delete the {what} with all that it holds?", abort=True, err=True)


def ask_secret(prompt: str) -> str:
    """A secret: typed without being shown, or all of standard input where that is no terminal. Raises CommandError."""
    if sys.stdin.isatty():
        return str(typer.prompt(prompt, hide_input=True, err=True))
    secret = sys.stdin.read().strip()
    if not secret:
        raise CommandError(f"{prompt}: nothing came on standard input")
    return secret
