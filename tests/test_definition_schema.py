"""The JSON Schema of definitions: what it refuses check refuses, and what can be run it takes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import fastjsonschema
import flows
import pytest
from blobhub_server.workflow.definitions.check import check
from blobhub_server.workflow.definitions.document import InvalidDefinition, Severity
from blobhub_server.workflow.definitions.reader import parse
from definition_mutants import mutants
from hypothesis import given
from interpreting import REGISTRY
from runs import FAILING

ROOT = Path(__file__).resolve().parent.parent
SCHEMA = json.loads((ROOT / "docs" / "definition.schema.json").read_text(encoding="utf-8"))
TAKES = fastjsonschema.compile(SCHEMA)


def takes(content: Any) -> bool:
    """Whether the schema takes a document."""
    try:
        TAKES(content)
    except fastjsonschema.JsonSchemaException:
        return False
    return True


def is_runnable(document: str) -> bool:
    """Whether check finds no error. Scripts are not read here."""
    try:
        problems = check(parse(document.encode()), REGISTRY)
    except InvalidDefinition:
        return False
    return all(problem.severity is not Severity.ERROR for problem in problems)


@given(mutants())
def test_what_the_schema_refuses_check_refuses(document: str) -> None:
    assert takes(json.loads(document)) or not is_runnable(document)


@pytest.mark.parametrize(
    "document",
    [flows.steps(2), flows.MIXED, flows.code("pass", policy={"timeout": "5s", "retry": {"maximumAttempts": 2.0}})],
)
def test_what_can_be_run_the_schema_takes(document: str) -> None:
    assert is_runnable(document)
    assert takes(json.loads(document))


@pytest.mark.parametrize("name", sorted(path.name for path in FAILING.glob("*.json")))
def test_the_schema_takes_every_input_that_failed_and_has_the_shape_of_a_definition(name: str) -> None:
    assert takes(json.loads((FAILING / name).read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    ("part", "key"),
    [
        *(("components", key) for key in ("id", "type")),
        *(("connections", key) for key in ("id", "source_id", "target_id", "source_port", "target_port")),
    ],
)
def test_the_schema_refuses_a_part_without_a_key_that_it_needs(part: str, key: str) -> None:
    content = json.loads(flows.steps(1))
    del content[part][0][key]
    assert not takes(content)
