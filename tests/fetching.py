"""Workflows that send one HTTP request, and credentials for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flows
from calling import ask
from marked import secret
from served import Api

OUTPUTS = ("status", "headers", "body", "body_type")


def fetches(
    *given: str, type_: str = "http.request", outputs: tuple[str, ...] = OUTPUTS, policy: Any = None, **settings: Any
) -> str:
    """Start, a request, its outputs in one object, end. `given` are inputs of the execution, data inputs by name.

    A single output is the result by itself.
    """
    if len(outputs) == 1:
        return _document(given, flows.component("ask", type_, policy=policy, **settings), ("ask", outputs[0]))
    made = f"{{{', '.join(f'{name!r}: default({name}, None)' for name in outputs)}}}"
    together = flows.component("all", "logic.expression", expression=made)
    wiring = [flows.control("ask", "all", "success"), *(flows.data("ask", name, "all", name) for name in outputs)]
    return _document(given, flows.component("ask", type_, policy=policy, **settings), ("all", "result"), [together], wiring)


def _document(
    given: tuple[str, ...], asking: Any, result: tuple[str, str], more: Sequence[Any] = (), wiring: Sequence[Any] = ()
) -> str:
    return flows.document(
        [
            flows.component("start", "flow.start"),
            *(flows.value(f"value-{name}", name, persistence="execution") for name in given),
            asking,
            *more,
            flows.component("end", "flow.end"),
        ],
        [
            flows.control("start", "ask"),
            *(flows.data(f"value-{name}", "value", "ask", name) for name in given),
            *wiring,
            flows.control(result[0], "end", "success"),
            flows.data(*result, "end", "value"),
        ],
    )


async def credential(api: Api, alias: str, parent: str = "acme", **body: Any) -> str:
    """Store a credential with a token, unless its body is given; the token."""
    token = secret(f"the token of {alias}")
    await ask(api, "CreateCredential", parent=parent, alias=alias, type="test", body=body or {"token": token})
    return token
