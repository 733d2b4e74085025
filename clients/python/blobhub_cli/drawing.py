"""A definition as a drawing in Mermaid's language, which many pages and editors show."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from blobhub_cli.failures import CommandError


def mermaid(document: str) -> str:
    """Draw a document: its components, arrows for control with their routes, dotted ones for data. Raises CommandError."""
    try:
        read = json.loads(document)
        components, connections = read["components"], read["connections"]
        names = {each["id"]: f"n{number}" for number, each in enumerate(components)}
        return "\n".join(["flowchart LR", *_boxes(components, names), *_arrows(connections, names)])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CommandError(
            "the document is no definition", next_step="see every problem with its place: blobhub definition check FILE"
        ) from error


def _boxes(components: list[dict[str, Any]], names: dict[str, str]) -> Iterator[str]:
    for each in components:
        label = _quoted(each.get("name") or each["id"])
        begin, end = ("[(", ")]") if each["type"].startswith("data.") else ("[", "]")
        yield f"    {names[each['id']]}{begin}{label}{end}"


def _arrows(connections: list[dict[str, Any]], names: dict[str, str]) -> Iterator[str]:
    for each in connections:
        source, target = (names.get(each[end]) for end in ("source_id", "target_id"))
        if not source or not target:
            continue  # it leads nowhere, which is for the check to say
        is_data = each.get("source_port") != "flow_output"
        route = "" if is_data else each.get("route", "")
        label = f"|{_quoted(route)}|" if route and route not in ("next", "success") else ""
        yield f"    {source} {'-.->' if is_data else '-->'}{label} {target}"


def _quoted(text: str) -> str:
    return '"' + text.replace('"', "#quot;").replace("\n", " ") + '"'
