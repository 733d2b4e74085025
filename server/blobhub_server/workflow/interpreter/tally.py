"""What the items of a `flow.each` have come to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from blobhub_server.blobtypes import json_text
from blobhub_server.workflow.components.each import MAX_ERRORS, Plan

_MESSAGE = 200
"""How many characters of an item's error are told."""

ResultSize = tuple[int, int]
"""The bytes of a result as JSON, and the items in it."""


@dataclass(slots=True)
class Tally:
    """How many items have `ended` and `failed`, and what they have given.

    `results` has a place for each item, where they are kept. `errors` has the first. `size` is that of the results, and
    `memory` what they take in memory. It is changed in place, so each state has a copy of its own.
    """

    results: list[Any] = field(default_factory=list)
    ended: int = 0
    failed: int = 0
    errors: list[dict[str, Any]] = field(default_factory=list)
    size: ResultSize = (0, 0)
    memory: int = 0

    @classmethod
    def of(cls, plan: Plan) -> Tally:
        """That of items none of which has ended."""
        return cls(results=[None] * plan.count if plan.keeps_results else [])

    def copy(self) -> Tally:
        """An independent copy."""
        return Tally(
            results=[*self.results],
            ended=self.ended,
            failed=self.failed,
            errors=[*self.errors],
            size=self.size,
            memory=self.memory,
        )

    def take_result(self, index: int, value: Any, size: ResultSize, memory: int) -> None:
        """An item has ended well."""
        self.ended += 1
        if self.results:
            self.results[index] = value
            self.size = (self.size[0] + size[0], self.size[1] + size[1])
            self.memory += memory

    def take_error(self, index: int, error: Mapping[str, Any]) -> None:
        """An item has failed."""
        self.ended += 1
        self.failed += 1
        if len(self.errors) < MAX_ERRORS:
            told = {"reason": error["reason"], "message": error["message"][:_MESSAGE], "component_id": error["component_id"]}
            self.errors.append({"index": index, **told})

    def outputs(self, plan: Plan) -> dict[str, Any]:
        """What is given when all have ended."""
        made = {"failed": self.failed, "errors": sorted(self.errors, key=lambda error: error["index"])}
        return made | {"results": [*self.results]} if plan.keeps_results else made

    def beyond(self, size: ResultSize, text: str) -> str:
        """Why a result that is one more cannot be in the list; empty where it can."""
        length, items = self.size[0] + size[0], self.size[1] + size[1]
        places = len(self.results)
        if length + places + 1 > json_text.MAX_BYTES:
            return f"they have more than {json_text.MAX_BYTES} bytes as JSON together"
        if items + places > json_text.MAX_VALUE_ITEMS:
            return f"they have more than {json_text.MAX_VALUE_ITEMS} items in lists and objects together"
        if json_text.is_deeper(text, json_text.MAX_DEPTH - 1):
            return f"one nests as deep as a value may, {json_text.MAX_DEPTH} lists and objects, and a list is around it"
        return ""
