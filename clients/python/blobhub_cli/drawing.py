"""A document as a drawing in Mermaid's language, without a server. What a server has stored it draws itself."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from blobhub_cli.failures import CommandError

MAX_CHARACTERS = 40
"""How much of a name is drawn."""
ENTITIES = str.maketrans(
    {'"': "#quot;", "&": "#amp;", "<": "#lt;", ">": "#gt;"} | {each: f"#{ord(each)};" for each in "#'`*\\$%|~:"}
)
"""What Mermaid would read as HTML, Markdown, a formula or a directive; the server's `drawing.py` says more of it."""


def mermaid(document: str) -> str:
    """Draw a document: its components, arrows for control with their routes, dotted ones for data. Raises CommandError."""
    try:
        read = json.loads(document)
        components, connections = read["components"], read["connections"]
        names = {each["id"]: f"n{number}" for number, each in enumerate(components)}
        inside = defaultdict[str, list[Any]](list)
        for each in components:
            inside[each["parent_id"] if each.get("parent_id") in names else ""].append(each)
        return "\n".join(["flowchart TD", *_boxes(inside, names), *_arrows(connections, names)])
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise CommandError(
            "the document is no definition", next_step="see every problem with its place: blobhub definition check FILE"
        ) from error


def _boxes(
    inside: Mapping[str, Sequence[Any]], names: Mapping[str, str], scope: str = "", indent: str = "  "
) -> Iterator[str]:
    """What is in a scope, or outside of all. A scope is in a frame with what is inside of it."""
    for each in inside.get(scope, ()):
        name, label = names[each["id"]], _quoted(each.get("name") or each["id"])
        if each["id"] in inside:
            yield f"{indent}subgraph g{name}[{label}]"
            yield f"{indent}  {name}{{{{{label}}}}}"
            yield from _boxes(inside, names, each["id"], f"{indent}  ")
            yield f"{indent}end"
        else:
            begin, end = ("[(", ")]") if each["type"].startswith("data.") else ("[", "]")
            yield f"{indent}{name}{begin}{label}{end}"


def _arrows(connections: Sequence[Any], names: Mapping[str, str]) -> Iterator[str]:
    for each in connections:
        source, target = (names.get(each[end]) for end in ("source_id", "target_id"))
        if not source or not target:
            continue  # it leads nowhere, which is for the check to say
        is_data = each.get("source_port") != "flow_output"
        route = "" if is_data else each.get("route", "")
        label = f"|{_quoted(route)}|" if route and route not in ("next", "success") else ""
        yield f"  {source} {'-.->' if is_data else '-->'}{label} {target}"


def _quoted(text: str) -> str:
    short = text if len(text) <= MAX_CHARACTERS else f"{text[: MAX_CHARACTERS - 3]}..."
    return '"' + "".join(each if each.isprintable() else " " for each in short).translate(ENTITIES) + '"'
