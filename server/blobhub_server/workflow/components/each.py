"""A scope that runs its body for each of many items."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from blobhub_server.blobtypes.json_text import MAX_VALUE_ITEMS
from blobhub_server.workflow.components.contract import (
    CONTROL_IN,
    ERROR,
    FAILURE,
    SUCCESS,
    ComponentError,
    Inputs,
    PortSpec,
)
from blobhub_server.workflow.components.repeated import INDEX, ITEM
from blobhub_server.workflow.components.scopes import BODY_PORT, ScopeComponent
from blobhub_server.workflow.values import unwrap

MAX_ITEMS = 100_000
"""How many items there may be. As a list there are fewer, because a value has fewer."""
MAX_CONCURRENCY, DEFAULT_CONCURRENCY = 256, 10
"""How many items may be run at once, and how many are unless the definition says so: all begin in one turn."""
MAX_ERRORS = 100
"""Of how many items the errors are told."""

_FAIL_FAST, _COLLECT = "fail_fast", "collect"
_LIST, _NONE = "list", "none"
_NAMES = ("items", "concurrency", "failures", "results")


@dataclass(frozen=True, slots=True)
class Plan:
    """What an attempt is to do: how many items there are, how many are run at once, how many may fail, and whether the
    results are kept."""

    count: int
    concurrency: int
    tolerated: int
    keeps_results: bool


class Each(ScopeComponent):
    """Runs what is inside, from where `body` leads, once for each of `items`, several at a time. Inside, `item` and `index`
    are those of the item; the value of the `flow.end` that ends it is its result, null where there is none. When all have
    ended, control leaves by `success`, with the `results` in the order of the items. Where more items fail than `failures`
    allows, no other begins, those that still run are cancelled, and it fails with the error of the last to fail. As the
    policy says all items are tried again; its `timeout` is for one attempt at all of them.
    """

    type = "flow.each"
    title = "Each"
    ports = (
        CONTROL_IN,
        BODY_PORT,
        SUCCESS,
        FAILURE,
        PortSpec(
            category="data_input",
            route="items",
            description=f"A list; or a number of items, up to {MAX_ITEMS:,}, each of which is its own index.",
            required=True,
        ),
        PortSpec(
            category="data_input",
            route="concurrency",
            description=f"How many are run at once, from 1 to {MAX_CONCURRENCY}; {DEFAULT_CONCURRENCY} unless it is set.",
            value_type="integer",
        ),
        PortSpec(
            category="data_input",
            route="failures",
            description="How many items may fail: `fail_fast` (the default) none, `collect` all, or a number.",
        ),
        PortSpec(
            category="data_input",
            route="results",
            description=f"`list` (the default), or `none`, where they are not kept: of more than {MAX_VALUE_ITEMS:,} items "
            "there is no list.",
            value_type="choice",
        ),
        PortSpec(category="data_output", route=ITEM, description="Inside, the item."),
        PortSpec(category="data_output", route=INDEX, description="Inside, its place among the items, from 0."),
        PortSpec(
            category="data_output",
            route="results",
            description="What the items have given, in their order; null for one that has failed.",
        ),
        PortSpec(category="data_output", route="failed", description="How many items have failed."),
        PortSpec(
            category="data_output",
            route="errors",
            description=f"Why, for the first {MAX_ERRORS} to fail: a list of objects with `index`, `reason`, `message` and "
            "`component_id`.",
        ),
        ERROR,
    )
    routes = ("body", "success", "failure")
    constants = ("results",)
    given_inside = (ITEM, INDEX)

    def given(self, inputs: Inputs, value: Any, number: int) -> Mapping[str, Any]:
        """The item and its index."""
        items = unwrap(inputs["items"])
        return {ITEM: items[number] if isinstance(items, list) else number, INDEX: number}

    def plan(self, inputs: Inputs) -> Plan:
        """What its inputs say. Raises ComponentError."""
        given = {name: unwrap(inputs[name]) for name in _NAMES if name in inputs}
        for name, message in _problems(given):
            raise ComponentError(f"`{name}` {message}", reason="INVALID_INPUT", retryable=False)
        count = len(given["items"]) if isinstance(given["items"], list) else given["items"]
        failures = given.get("failures", _FAIL_FAST)
        return Plan(
            count=count,
            concurrency=given.get("concurrency", DEFAULT_CONCURRENCY),
            tolerated={_FAIL_FAST: 0, _COLLECT: count}.get(failures, failures),
            keeps_results=given.get("results", _LIST) == _LIST,
        )

    def problems(self, settings: Inputs) -> list[tuple[str, str]]:
        """Values that are none that it takes."""
        return _problems({name: unwrap(settings[name]) for name in _NAMES if name in settings})

    def outputs_set(self, settings: Inputs) -> frozenset[str]:
        """All that it declares, but for results that are not kept."""
        made = {ITEM, INDEX, "results", "failed", "errors", "error"}
        return frozenset(made - {"results"} if unwrap(settings.get("results")) == _NONE else made)


def _problems(given: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What is wrong with plain values, by data input."""
    found = []
    items, failures = given.get("items", []), given.get("failures", 0)
    if not isinstance(items, list) and not _is_number(items, 0, MAX_ITEMS):
        found.append(("items", f"must be a list, or a number of items from 0 to {MAX_ITEMS}"))
    if not _is_number(given.get("concurrency", 1), 1, MAX_CONCURRENCY):
        found.append(("concurrency", f"must be an integer from 1 to {MAX_CONCURRENCY}"))
    if failures not in (_FAIL_FAST, _COLLECT) and not _is_number(failures, 0, MAX_ITEMS):
        found.append(("failures", f"must be `{_FAIL_FAST}`, `{_COLLECT}` or a number from 0 to {MAX_ITEMS}"))
    if given.get("results", _LIST) not in (_LIST, _NONE):
        found.append(("results", f"must be `{_LIST}` or `{_NONE}`"))
    elif not found and given.get("results") != _NONE and _is_number(items, MAX_VALUE_ITEMS + 1, MAX_ITEMS):
        found.append(
            ("items", f"are more than a list of results has, which is {MAX_VALUE_ITEMS}: set `results` to `{_NONE}`")
        )
    return found


def _is_number(value: Any, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most
