"""What is given on the command line: files, JSON values, inputs by alias, words of enums, references in parts."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from google.protobuf.descriptor import EnumDescriptor
from google.protobuf.timestamp_pb2 import Timestamp

from blobhub_cli.failures import CommandError
from blobhub_cli.plain import enum_words

STDIN = "-"
INPUT_FORMS = "alias=text, alias=@file, alias:=JSON or alias:=@file"


def read_bytes(path: str) -> bytes:
    """What is in a file, or comes from standard input for `-`. Raises CommandError."""
    try:
        return sys.stdin.buffer.read() if path == STDIN else Path(path).read_bytes()
    except OSError as error:
        raise CommandError(f"cannot read {path}: {error.strerror}") from error


def read_text(path: str) -> str:
    """The text in a file, or from standard input for `-`. Raises CommandError."""
    try:
        return read_bytes(path).decode()
    except UnicodeDecodeError as error:
        raise CommandError(f"{path} is not text in UTF-8: {error.reason} at byte {error.start}") from error


def write_bytes(path: str, content: bytes) -> None:
    """Write a file, or to standard output for `-`. Raises CommandError."""
    try:
        if path == STDIN:
            sys.stdout.buffer.write(content)
            sys.stdout.buffer.flush()
        else:
            Path(path).write_bytes(content)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise CommandError(f"cannot write {path}: {error.strerror}") from error


def read_json(text: str, name: str) -> Any:
    """The value of a JSON text; `@path` stands for what is in a file. Raises CommandError."""
    text, name = (read_text(text[1:]), text[1:]) if text.startswith("@") else (text, name)
    try:
        return json.loads(text)
    except ValueError as error:
        raise CommandError(f"{name} is not JSON: {error}") from error


def json_or_text(text: str) -> Any:
    """A value: JSON where the text is that, else the text itself; `@path` stands for what is in a file."""
    text = read_text(text[1:]) if text.startswith("@") else text
    try:
        return json.loads(text)
    except ValueError:
        return text


def named_values(given: Sequence[str]) -> dict[str, Any]:
    """The values of `alias=text`, `alias=@file`, `alias:=JSON` and `alias:=@file`. Raises CommandError."""
    values: dict[str, Any] = {}
    for each in given:
        alias, equals, text = each.partition("=")
        if not equals or not alias.removesuffix(":"):
            raise CommandError(f"an input is {INPUT_FORMS}, and {each!r} is none of these")
        if alias.endswith(":"):
            values[alias[:-1]] = read_json(text, f"the input {alias[:-1]}")
        else:
            values[alias] = read_text(text[1:]) if text.startswith("@") else text
    return values


def word_number(kind: EnumDescriptor, word: str | None, what: str) -> Any:
    """The number of a word of an enum, 0 for none. Raises CommandError, which names the words there are.

    Each enum's numbers are a type of their own to the stubs.
    """
    words = enum_words(kind)
    if word and word not in words:
        raise CommandError(f"the {what} is one of {', '.join(words)}, not {word!r}")
    return words[word] if word else 0


def timestamp(text: str) -> Timestamp | None:
    """A time of ISO 8601, in UTC unless it says otherwise; None for no text. Raises CommandError."""
    if not text:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise CommandError(f"a time is written as 2026-03-29T02:30:00Z, not {text!r}") from error
    made = Timestamp()
    made.FromDatetime(found if found.tzinfo else found.replace(tzinfo=UTC))
    return made


def split_last(reference: str, form: str) -> tuple[str, str]:
    """What stands before the last `/` of a reference, and behind it. Raises CommandError, which says the form."""
    before, _, last = reference.rpartition("/")
    if not before or not last:
        raise CommandError(f"it is written {form}, not {reference!r}")
    return before, last
