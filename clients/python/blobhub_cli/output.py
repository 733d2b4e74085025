"""What a command prints: for people in a terminal, plain lines in a pipe, one JSON object a line with `--json`.

What a server says may hold anything; control characters of it never reach a terminal.
"""

from __future__ import annotations

import re
import sys
from collections.abc import AsyncIterable, Iterable, Sequence
from typing import Any

from google.protobuf.message import Message
from rich.console import Console
from rich.table import Table
from rich.text import Text

from blobhub_cli.plain import json_text, plain, readable, readable_fields

PIPE_WIDTH = 1_000_000
"""Nothing is cut or wrapped where no terminal has an edge."""
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
BETWEEN_COLUMNS = "  "
MAX_VALUE = 1_000
"""How many characters of a value people are shown beside its name."""
PAST = {"create_time": "CREATED", "update_time": "UPDATED", "end_time": "ENDED"}
"""Headings of columns that have a better word."""


def harmless(text: str) -> str:
    """A text whose control characters, which could steer a terminal, are written out; line ends and tabs stay."""
    return CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


class Output:
    """Where the answers of a command go."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        self.console = _console(stderr=False)
        self.errors = _console(stderr=True)

    @property
    def is_live(self) -> bool:
        """Whether a picture may be drawn, and drawn again, in a terminal."""
        return self.console.is_terminal and not self.as_json

    def line(self, text: str = "", style: str = "") -> None:
        """Print a line for people; with `--json`, nothing."""
        if not self.as_json:
            self.console.print(Text(harmless(text), style=style), soft_wrap=True)

    def note(self, text: str) -> None:
        """Say something beside the answer, on standard error; with `--json`, nothing."""
        if not self.as_json:
            self.errors.print(Text(harmless(text), style="dim"), soft_wrap=True)

    def json(self, value: Any) -> None:
        """Print a JSON object on a line of its own."""
        sys.stdout.write(json_text(value) + "\n")
        sys.stdout.flush()

    def json_error(self, value: Any) -> None:
        """Print a JSON object on a line of standard error."""
        sys.stderr.write(json_text(value) + "\n")

    def record(self, message: Message) -> None:
        """Print all that is set in a message."""
        if self.as_json:
            self.json(plain(message))
        else:
            self.pairs(readable_fields(message))

    def done(self, answer: Message, text: str) -> None:
        """Say that something was done, to people in words, to programs with the answer."""
        if self.as_json:
            self.json(plain(answer))
        else:
            self.line(text)

    def pairs(self, pairs: dict[str, str]) -> None:
        """Print names and what they stand for, aligned."""
        width = max(map(len, pairs), default=0)
        for name, value in pairs.items():
            text = Text(name.ljust(width), style="bold") + Text(BETWEEN_COLUMNS + _indented(value, width))
            self.console.print(text, soft_wrap=True)

    async def table(self, messages: AsyncIterable[Message], columns: Sequence[str], limit: int = 0) -> None:
        """Print fields of messages as a table, at most `limit` of them unless that is 0. A column is a path, or `NAME=path`.

        With `--json` each message is a line, as it comes.
        """
        kept: list[Message] = []
        count = 0
        async for message in messages:
            if limit and count == limit:
                self.note(f"There are more than {limit}; --limit 0 shows all.")
                break
            count += 1
            if self.as_json:
                self.json(plain(message))
            else:
                kept.append(message)
        if not self.as_json:
            self.messages(kept, columns)

    def messages(self, messages: Iterable[Message], columns: Sequence[str]) -> None:
        """Print fields of messages that are all there as a table; with `--json`, each message on a line."""
        if self.as_json:
            for message in messages:
                self.json(plain(message))
            return
        paths = [column.rpartition("=")[2] for column in columns]
        rows = [[harmless(readable(each, path)).replace("\n", " ") for path in paths] for each in messages]
        self.rows([_heading(column) for column in columns], rows)

    def rows(self, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Print rows of texts under headings; in words, where there are none."""
        if not rows:
            self.note("There are none.")
        elif self.console.is_terminal:
            table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
            for number, heading in enumerate(headings):
                table.add_column(heading, no_wrap=True, overflow="ellipsis" if number else "fold")
            for row in rows:
                table.add_row(*map(Text, row))
            self.console.print(table)
        else:
            widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]
            for row in (headings, *rows):
                cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
                sys.stdout.write(BETWEEN_COLUMNS.join(cells).rstrip() + "\n")

    def error_lines(self, lines: Iterable[tuple[str, str]]) -> None:
        """Print lines on standard error, each with its style."""
        for text, style in lines:
            self.errors.print(Text(harmless(text), style=style), soft_wrap=True)


def _console(*, stderr: bool) -> Console:
    is_terminal = (sys.stderr if stderr else sys.stdout).isatty()
    width = None if is_terminal else PIPE_WIDTH
    return Console(stderr=stderr, highlight=False, markup=False, emoji=False, width=width, force_terminal=is_terminal)


def _heading(column: str) -> str:
    name, _, path = column.rpartition("=")
    return name or PAST.get(path) or path.rpartition(".")[2].replace("_", " ").upper()


def _indented(value: str, width: int) -> str:
    """A value whose further lines stand below its first one; of a long one, the beginning."""
    if left_out := max(len(value) - MAX_VALUE, 0):
        value = f"{value[:MAX_VALUE]} … and {left_out:,} characters more, which --json shows"
    return harmless(value).replace("\n", "\n" + " " * width + BETWEEN_COLUMNS)
