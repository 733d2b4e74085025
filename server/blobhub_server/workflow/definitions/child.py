"""Examine documents of definitions: `python -m … [COMPONENT…]`, where those components are named that lack what they need.

Requests come on the standard input, answers go to the standard output.

A request is two frames: the document, and the flaws of its scripts as JSON, null before the scripts were looked at.
An answer is one frame of JSON texts, a line each: a header, and then the problems. A frame is four bytes that say its
length, and so many bytes.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import traceback
from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import Any, BinaryIO

from blobhub_server.memory import resident_bytes
from blobhub_server.workflow.code.contract import ScriptFlaw
from blobhub_server.workflow.components.registry import ComponentRegistry
from blobhub_server.workflow.definitions.document import Problem, ProblemType, Severity
from blobhub_server.workflow.definitions.examination import Examination, examine

LENGTH_BYTES = 4
MAX_MEMORY_BYTES = 1 << 30
"""What the process may have as address space. Of the largest documents none was seen to take more than 72 MiB."""
MAX_KEPT_BYTES = 128 << 20
"""When the process has more than that in memory after a document, it ends."""

Flaws = dict[str, tuple[str, int, int]]
"""Message, line and column of the flaws of scripts, by their text."""
_fields = attrgetter("type", "component_id", "path", "message", "severity", "line", "column")


def frame(content: bytes) -> bytes:
    """A frame with a content."""
    return len(content).to_bytes(LENGTH_BYTES) + content


def request_of(document: bytes, flaws: Flaws | None) -> bytes:
    """A request, as its frames."""
    return frame(document) + frame(json.dumps(flaws).encode())


def read_answer(answer: bytes) -> tuple[dict[str, Any], list[Problem]]:
    """The header and the problems of an answer. Called in a thread, which gives the interpreter up between the lines."""
    header, *rows = answer.split(b"\n")
    return json.loads(header), [_problem(*json.loads(row)) for row in rows]


def _problem(type_: str, component_id: str, path: str, message: str, severity: str, line: int, column: int) -> Problem:
    return Problem(
        type=ProblemType(type_),
        component_id=component_id,
        path=path,
        message=message,
        severity=Severity(severity),
        line=line,
        column=column,
    )


class _Child:
    """Answers requests. The document of the last one is kept until its scripts were looked at."""

    def __init__(self, lacking: Iterable[str]) -> None:
        self._registry = ComponentRegistry.load().mark_lacking(lacking)
        self._last: tuple[bytes, Examination] | None = None

    def answer(self, document: bytes, flaws: Flaws | None) -> tuple[dict[str, Any], Sequence[Problem]]:
        """A header with the scripts that have to be looked at first, or an error that came in between; else the problems."""
        try:
            examined = self._examined(document)
            if flaws is None and examined.scripts:
                return {"scripts": list(examined.scripts)}, ()
            self._last = None
            found = {text: ScriptFlaw(message=flaw[0], line=flaw[1], column=flaw[2]) for text, flaw in (flaws or {}).items()}
            return {}, examined.check(self._registry, found)
        except Exception:
            self._last = None
            return {"error": traceback.format_exc()}, ()

    def _examined(self, document: bytes) -> Examination:
        if self._last is None or self._last[0] != document:
            self._last = None  # Its memory is used for the next.
            self._last = document, examine(document, self._registry)
        return self._last[1]


def _read_frame(stream: BinaryIO) -> bytes | None:
    length = stream.read(LENGTH_BYTES)
    return stream.read(int.from_bytes(length)) if length else None


def _lines(header: dict[str, Any], problems: Iterable[Problem]) -> bytes:
    return b"\n".join(json.dumps(row).encode() for row in (header, *map(_fields, problems)))


def main() -> None:
    """Answer until the input ends, or much memory is not given back; `is_last` says that nothing is answered any more."""
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # What a component prints is no answer.
    child = _Child(sys.argv[1:])
    while (document := _read_frame(sys.stdin.buffer)) is not None:
        header, problems = child.answer(document, json.loads(_read_frame(sys.stdin.buffer) or b"null"))
        is_last = "scripts" not in header and resident_bytes() > MAX_KEPT_BYTES
        answers.write(frame(_lines(header | {"is_last": is_last}, problems)))
        answers.flush()
        if is_last:
            return


if __name__ == "__main__":
    main()
