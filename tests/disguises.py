"""What a secret can look like where it got out, and a scanner that knows it by any of these looks."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote

from ahocorasick_rs import BytesAhoCorasick, Implementation

SHORTEST = 10
"""Bytes; what is shorter turns up by chance."""

SEPARATORS = (" ", "-", ":", ",", "\n", "\\n")
BLOCK = 8 << 20
PAGE = 4096
"""Bytes; both kinds of databases are written in pages of this or of a multiple of it."""
SMALL = 16 * PAGE
"""Files of so many bytes at most are told by their whole content from those that were looked at before."""


def patterns(secret: str) -> dict[bytes, str]:
    """What to look for, as `pattern → encoding`; wherever in an encoded text the secret lies, its pattern is there.

    Split by 2 means both: in two halves, and two by two with a separator between.
    """
    found: dict[bytes, str] = {}
    for encoding, forms in _FORMS.items():
        for form in forms(secret):
            found.setdefault(form.encode(), encoding)
    assert len(min(found, key=len)) >= SHORTEST, f"a secret of {len(secret)} characters is too short to look for"
    return found


def _plain(secret: str) -> Iterator[str]:
    yield secret


def _base64(secret: str) -> Iterator[str]:
    """In both alphabets: what is the same whatever comes before and after, for each of the three places to begin at."""
    data = secret.encode()
    for before in range(3):
        whole = base64.b64encode(bytes(before) + data).decode()
        middle = whole[-(-before * 8 // 6) : (before + len(data)) * 8 // 6]
        yield middle
        yield middle.translate(str.maketrans("+/", "-_"))


def _hex(secret: str) -> Iterator[str]:
    yield secret.encode().hex()
    yield secret.encode().hex().upper()


def _url(secret: str) -> Iterator[str]:
    """As it must be written in a URL, and as it may be: every byte by its number."""
    yield quote(secret, safe="")
    every = "".join(f"%{byte:02X}" for byte in secret.encode())
    yield from (every, every.lower())


def _json(secret: str) -> Iterator[str]:
    """In JSON, in JSON within JSON or within a Python literal, in that alone, and every character by its number."""
    once = json.dumps(secret)[1:-1]
    yield from (once, json.dumps(once)[1:-1], once.replace("\\", "\\\\"), secret.replace("\\", "\\\\"))
    yield "".join(f"\\u{ord(character):04x}" for character in secret)
    yield "".join(f"\\u{ord(character):04X}" for character in secret)


def _reversed(secret: str) -> Iterator[str]:
    yield secret[::-1]


def _split(secret: str) -> Iterator[str]:
    half = len(secret) // 2
    yield from (secret[:half], secret[half:])
    for first in (0, 1):
        pairs = [secret[i : i + 2] for i in range(first, len(secret), 2)]
        yield from (separator.join(pairs) for separator in SEPARATORS)


_FORMS = {
    "plain": _plain,
    "base64": _base64,
    "hex": _hex,
    "URL": _url,
    "JSON-escaped": _json,
    "reversed": _reversed,
    "split by 2": _split,
}

ENCODINGS = tuple(_FORMS)


@dataclass(frozen=True, order=True)
class Leak:
    """A secret in an output: where, what secret (never the secret itself), and what it looked like."""

    where: str
    label: str
    encoding: str

    def __str__(self) -> str:
        return f"{self.where} holds {self.label}, {self.encoding}"


class Scanner:
    """Looks for all the secrets in one pass."""

    def __init__(self, secrets: Mapping[str, str]) -> None:
        self._looks = [
            (pattern, label, encoding) for secret, label in secrets.items() for pattern, encoding in patterns(secret).items()
        ]
        found = [pattern for pattern, _, _ in self._looks]
        self._overlap = max(map(len, found), default=1) - 1
        self._known: set[int] = set()
        self._known_files: set[int] = set()
        self._automaton = BytesAhoCorasick(found, implementation=Implementation.ContiguousNFA)
        self.scanned = 0
        """Bytes so far."""

    def data(self, where: str, data: bytes) -> set[Leak]:
        """The leaks in some bytes."""
        self.scanned += len(data)
        return self._leaks(where, data)

    def stream(self, where: str, stream: BinaryIO) -> set[Leak]:
        """The leaks in a stream of any length. Those in a page that was looked at before are named once."""
        leaks: set[Leak] = set()
        kept = b""
        while block := stream.read(BLOCK):
            self.scanned += len(block)
            kept += block
            whole = max(0, len(kept) - self._overlap) // PAGE * PAGE
            leaks |= self._leaks_in_pages(where, kept, whole)
            kept = kept[whole:]
        return leaks | self._leaks_in_pages(where, kept, len(kept))

    def _leaks_in_pages(self, where: str, data: bytes, end: int) -> set[Leak]:
        """The leaks that begin before `end` in pages unlike any before; one may go on in what follows."""
        leaks: set[Leak] = set()
        begin: int | None = None
        for at in range(0, end, PAGE):
            known = len(self._known)
            self._known.add(hash(data[at : at + PAGE + self._overlap]))
            if len(self._known) > known:
                begin = at if begin is None else begin
            elif begin is not None:
                leaks |= self._leaks(where, data[begin : at + self._overlap])
                begin = None
        return leaks if begin is None else leaks | self._leaks(where, data[begin : end + self._overlap])

    def files(self, named: Iterable[tuple[str, str | Path]]) -> set[Leak]:
        """The leaks in files, each with a name to be told by."""
        leaks: set[Leak] = set()
        for where, path in named:
            with open(path, "rb", buffering=0) as stream:
                if os.fstat(stream.fileno()).st_size > SMALL:
                    leaks |= self.stream(where, stream)
                else:
                    leaks |= self._small(where, stream.readall())
        return leaks

    def _small(self, where: str, data: bytes) -> set[Leak]:
        """The leaks in a small file, unless there was one like it."""
        self.scanned += len(data)
        known = len(self._known_files)
        self._known_files.add(hash(data))
        return self._leaks_in_pages(where, data, len(data)) if len(self._known_files) > known else set()

    def _leaks(self, where: str, data: bytes) -> set[Leak]:
        found = self._automaton.find_matches_as_indexes(data, overlapping=True)
        looks = [self._looks[index] for index, _, _ in found]
        return {Leak(where=where, label=label, encoding=encoding) for _, label, encoding in looks}
