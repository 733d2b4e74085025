"""Hostile expressions, as components and as cases of switches, over large values of the session and of the definition."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from typing import Any

import flows
from hostile_expressions import CORPUS, LOOPS, NAMES, SIZES

from hostile import texts
from hostile.attacker import Attacker, Member

SMALL = {name: value for name, value in NAMES.items() if name not in texts.OBJECTS}


def members() -> Iterator[Member]:
    """Each expression of the corpus as a component, those that work much in switches and in loops too."""
    for number, text in enumerate(CORPUS):
        yield _member("expression", f"{number:03} {shortened(text)}", text, evaluated(text))
    for number, text in enumerate([*LOOPS, *SIZES[::4]]):
        yield _member("switch", f"case {number:03} {shortened(text)}", text, switched([f"({text}) == 1"]))
    for count, text in ((256, "len([x for x in n]) == 1"), (256, "sum(n) < 0"), (100, "t + 'b' == t"), (200, "u in t")):
        yield _member("switch", f"{count} cases of {text}", f"{count} {text}", switched([text] * count))
    for number, text in enumerate(LOOPS[::3]):
        yield _member(
            "expression", f"round and round {number:02} {shortened(text)}", f"loop {text}", evaluated(text, again=True)
        )
    for count in (50, 500, 1500):
        for text in ("len([x for x in n])", "[x + 1 for x in m[:3000]]", "t + 'b'"):
            document = fanned(text, count)
            yield _member("expression", f"{count} branches of {text}", f"{count} {text}", document)


def _member(kind: str, name: str, content: str, document: str) -> Member:
    return Member(kind=kind, name=name, content=lambda: content, attack=partial(_attack, document))


async def _attack(document: str, attacker: Attacker) -> None:
    await attacker.ask("CheckDefinition", revision=attacker.draft, document=document)
    await attacker.run(document)


def shortened(text: str) -> str:
    """A text as the part of a name."""
    return ascii(text[:40])[1:-1]


def sources(text: str) -> tuple[list[dict[str, Any]], list[tuple[str, str]], dict[str, Any]]:
    """What an expression needs: components with session values, what they are called, and constants."""
    used = {name for name in NAMES if re.search(rf"\b{name}\b", text)}
    stored = sorted(used & texts.OBJECTS.keys())
    components = [flows.value(f"object-{name}", name, persistence="session") for name in stored]
    return components, [(f"object-{name}", name) for name in stored], {name: SMALL[name] for name in used & SMALL.keys()}


def evaluated(text: str, *, again: bool = False) -> str:
    """An expression; with `again`, it gets control back whatever comes of it."""
    components, links, constants = sources(text)
    it = flows.component("it", "logic.expression", **constants)
    it["ports"].append(flows.port("data_input", "expression", text))
    after = [flows.control("it", "it", "success"), flows.control("it", "it", "failure")]
    return flows.document(
        [flows.component("start", "flow.start"), it, flows.component("end", "flow.end"), *components],
        [
            flows.control("start", "it"),
            *(after if again else [flows.control("it", "end", "success"), flows.data("it", "result", "end", "value")]),
            *(flows.data(id_, "value", "it", name) for id_, name in links),
        ],
    )


def switched(whens: list[str]) -> str:
    """A switch with such cases."""
    components, links, constants = sources(" ".join(whens[:1]))
    cases = [{"route": f"r{number % 4}", "when": when} for number, when in enumerate(whens)]
    it = flows.component("it", "flow.switch", cases=cases, **constants)
    return flows.document(
        [flows.component("start", "flow.start"), it, flows.component("end", "flow.end"), *components],
        [
            flows.control("start", "it"),
            flows.control("it", "end", "default"),
            *(flows.control("it", "end", f"r{number}") for number in range(4)),
            *(flows.data(id_, "value", "it", name) for id_, name in links),
        ],
    )


def fanned(text: str, count: int) -> str:
    """Many branches that evaluate one expression at once."""
    components, links, constants = sources(text)
    names = [f"it-{number}" for number in range(count)]
    its = [flows.component(name, "logic.expression", expression=text) for name in names]
    given = [flows.value(f"constant-{name}", name, value=value) for name, value in constants.items()]
    joined = [flows.data(id_, "value", name, route) for name in names for id_, route in links]
    joined += [flows.data(f"constant-{route}", "value", name, route) for name in names for route in constants]
    return flows.document(
        [flows.component("start", "flow.start"), *its, *components, *given],
        [*(flows.control("start", name) for name in names), *joined],
    )
