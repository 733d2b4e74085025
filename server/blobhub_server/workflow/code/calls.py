"""What the text of a script says of its calls, without running it: the routes and outputs that it names by literals."""

from __future__ import annotations

import ast
import io
import token
import tokenize
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice

MAX_LEXEMES = 20_000
"""How many of a script are looked at; each takes some microseconds."""
_MAX_LITERAL = 1_000
_PASSED_OVER = (token.NL, token.COMMENT, token.INDENT, token.DEDENT)


@dataclass(frozen=True, slots=True)
class RouteCall:
    """A route that a script chooses by `set_result('route')`, and where the route stands, both from 1."""

    route: str
    line: int
    column: int


@dataclass(frozen=True, slots=True)
class ScriptCalls:
    """The routes that a script names and goes on with, and its outputs; None when it may set others than those it names."""

    routes: tuple[RouteCall, ...]
    outputs: frozenset[str] | None


# Each of a script's calls is asked for by itself, so the last few texts are kept.
@lru_cache(maxsize=8)
def calls_of(source: str) -> ScriptCalls:
    """The calls of a script. It is only cut into tokens, the first ones, so no text makes this deep or long."""
    if "set_result" not in source and "set_data_output" not in source:
        return ScriptCalls(routes=(), outputs=frozenset())
    lexemes = lexemes_of(source)
    tokens = [item for item in lexemes if item.type != token.NEWLINE]
    routes = []
    outputs: set[str] | None = set() if len(lexemes) < MAX_LEXEMES else None
    for number, name in enumerate(tokens):
        if name.type != token.NAME or name.string not in ("set_result", "set_data_output"):
            continue
        literal = _first_argument(tokens[number + 1 : number + 4])
        if name.string == "set_data_output":
            outputs = None if literal is None or outputs is None else outputs | {literal}
        elif literal is not None and tokens[number + 3].string == ")":
            line, column = tokens[number + 2].start
            routes.append(RouteCall(route=literal, line=line, column=column + 1))
    return ScriptCalls(routes=tuple(routes), outputs=None if outputs is None else frozenset(outputs))


def line_of_raise(source: str) -> int | None:
    """The line of the only `raise Name(…)` whose argument is no text, as tokens tell; None if there are several."""
    found, lexemes = [], lexemes_of(source)
    for number, item in enumerate(lexemes):
        following = lexemes[number + 1 : number + 5]
        if item.type != token.NAME or item.string != "raise" or len(following) < 4 or following[1].string != "(":
            continue
        argument, after = following[2], following[3]
        text = token.tok_name[argument.type] in ("STRING", "FSTRING_START") or argument.string in ("str", "repr")
        if argument.string != ")" and (not text or after.string == ","):
            found.append(item.start[0])
    return found[0] if len(found) == 1 else None


@lru_cache(maxsize=2)
def lexemes_of(source: str) -> list[tokenize.TokenInfo]:
    """The first tokens of a script, with the ends of its statements, up to where it can be read."""
    return list(islice(_tokens(source), MAX_LEXEMES))


def _tokens(source: str) -> Iterator[tokenize.TokenInfo]:
    try:
        for item in tokenize.generate_tokens(io.StringIO(source).readline):
            if item.type not in _PASSED_OVER:
                yield item
    except (tokenize.TokenError, SyntaxError):
        return


def _first_argument(following: Sequence[tokenize.TokenInfo]) -> str | None:
    """The first argument of a call as a text, of the tokens after the function's name; None when it is no literal."""
    if len(following) < 3 or following[0].string != "(" or following[2].string not in (",", ")"):
        return None
    literal = following[1].string
    if following[1].type not in (token.STRING, token.NUMBER) and literal not in ("None", "True", "False"):
        return None
    try:
        return str(ast.literal_eval(literal)) if len(literal) <= _MAX_LITERAL else None
    except (SyntaxError, ValueError):
        return None
