"""What the text of a script says that it will ask of the sandbox in vain: modules that are not there, to sleep, and halves
of surrogate pairs, which no text of the sandbox can hold.
"""

from __future__ import annotations

import re
import token
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from tokenize import TokenInfo

from blobhub_server.workflow.code.calls import lexemes_of

MODULES = frozenset(
    {"asyncio", "base64", "binascii", "bisect", "collections", "copy", "csv", "dataclasses", "datetime", "decimal"}
    | {"functools", "hashlib", "itertools", "json", "math", "os", "pathlib", "posixpath", "random", "re", "sys", "time"}
    | {"tomllib", "typing", "unicodedata", "uuid"}
)
"""What a script can import; of `uuid` there is `uuid4` alone."""
SLEEPING = ("time", "asyncio")
"""The modules whose `sleep` is refused: a script that waits would hold its worker."""

_HALF = re.compile(r"(?<!\\)(?:\\\\)*\\(?:u|U0000)[dD][89a-fA-F][0-9a-fA-F]{2}")
_MESSAGE_OF_HALF = "holds half of a surrogate pair, which becomes U+FFFD; write the character itself, or `\\U` with 8 digits"
_LITERALS = ("STRING", "FSTRING_MIDDLE")


def refusal_to_sleep(module: str) -> str:
    """What a script that sleeps is told, by check and where it runs."""
    return f"{module}.sleep is not available: use flow.delay"


@dataclass(frozen=True, slots=True)
class MissingUse:
    """Something that the sandbox does not have, in words, and where the script uses it, both from 1."""

    message: str
    line: int
    column: int


@dataclass(slots=True)
class _Names:
    """The names by which a script calls the modules that sleep, and their functions."""

    modules: dict[str, str] = field(default_factory=dict)
    functions: dict[str, str] = field(default_factory=dict)


def missing_uses(source: str) -> list[MissingUse]:
    """The uses of a script, as far as its text is certain. It is only cut into tokens, like `calls_of`."""
    halves = _HALF.search(source) is not None
    if "import" not in source and not halves:
        return []
    lexemes, names = lexemes_of(source), _Names()
    found: list[MissingUse] = []
    for number, item in enumerate(lexemes):
        if item.type == token.NAME and item.string in ("import", "from") and _begins_statement(lexemes, number):
            found += _import(lexemes[number:], names)
        elif module := _sleep(lexemes, number, names):
            found.append(_use(refusal_to_sleep(module), item))
        elif halves and _has_half(item):
            found.append(_use(_MESSAGE_OF_HALF, item))
    return found


def _has_half(item: TokenInfo) -> bool:
    """Whether a token is a text with the escape of half a character. In raw texts and bytes `\\u` is no escape."""
    if token.tok_name[item.type] not in _LITERALS:
        return False
    prefix = re.match("[A-Za-z]*", item.string)
    return not (prefix and set(prefix[0].lower()) & {"r", "b"}) and _HALF.search(item.string) is not None


def _begins_statement(lexemes: Sequence[TokenInfo], number: int) -> bool:
    """Whether a statement begins with a token. `raise error from cause` has a `from` that begins none."""
    return number == 0 or lexemes[number - 1].type == token.NEWLINE or lexemes[number - 1].string in (";", ":")


def _import(statement: Sequence[TokenInfo], names: _Names) -> Iterator[MissingUse]:
    """The modules of an import that are not there. Keeps the names that it gives to what sleeps."""
    words = [item for item in _statement(statement) if item.string not in ("(", ")")]
    if words[0].string == "import":
        for part in _split(words[1:]):
            module = part[0].string
            if module in SLEEPING and len(part) in (1, 3):
                names.modules[part[-1].string] = module
            yield from _absent(part[0])
        return
    if len(words) < 2 or words[1].type != token.NAME:
        return
    module = words[1].string
    yield from _absent(words[1])
    imported = [number for number, item in enumerate(words) if item.string == "import"]
    if module in SLEEPING and imported == [2]:
        for part in _split(words[3:]):
            if part[0].string == "sleep":
                names.functions[part[-1].string] = module


def _statement(lexemes: Sequence[TokenInfo]) -> Iterator[TokenInfo]:
    """The tokens up to the end of the statement."""
    for item in lexemes:
        if item.type in (token.NEWLINE, token.ENDMARKER) or item.string == ";":
            return
        yield item


def _split(words: Sequence[TokenInfo]) -> list[list[TokenInfo]]:
    """The parts between commas, each of which begins with a name."""
    parts: list[list[TokenInfo]] = [[]]
    for item in words:
        if item.string == ",":
            parts.append([])
        else:
            parts[-1].append(item)
    return [part for part in parts if part and part[0].type == token.NAME]


def _absent(name: TokenInfo) -> list[MissingUse]:
    if name.string in MODULES:
        return []
    return [_use(f"the sandbox has no module {name.string[:60]!r}; it has {', '.join(sorted(MODULES))}", name)]


def _sleep(lexemes: Sequence[TokenInfo], number: int, names: _Names) -> str | None:
    """The module whose `sleep` a token begins to call or to pass on; None when it does not."""
    item, before = lexemes[number], lexemes[number - 1].string if number else ""
    if item.type != token.NAME or before in (".", "def", "class"):
        return None
    after = [following.string for following in lexemes[number + 1 : number + 3]]
    if after == [".", "sleep"]:
        return names.modules.get(item.string)
    return names.functions.get(item.string) if after[:1] == ["("] else None


def _use(message: str, item: TokenInfo) -> MissingUse:
    line, column = item.start
    return MissingUse(message=message, line=line, column=column + 1)
