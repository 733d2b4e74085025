"""The page of workflow definitions is so: its definitions run as it says, and it has every reason that there is."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from blobhub_server.blobtypes import json_field
from blobhub_server.blobtypes.reasons import error_classes
from blobhub_server.errors import (
    AmbiguousReference,
    ContentLost,
    CredentialUnreadable,
    LimitExceeded,
    MasterKeyMissing,
    NotFound,
    PermissionDenied,
    Renamed,
    WrongBlobType,
)
from blobhub_server.http.outbound.message import OutboundError
from blobhub_server.onnx.errors import ExtraNotInstalled
from blobhub_server.onnx.inference.errors import InferenceError
from blobhub_server.workflow import reasons
from blobhub_server.workflow.errors import DefinitionNotRunnable, SessionNotOpen
from blobhub_server.workflow.rules import child
from calling import ask
from runs import run
from served import Api

pytestmark = pytest.mark.either_database

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "definitions.md").read_text()
RUN = re.compile(r"^With `(.*?)` (?:the result is|it fails with) `(.*?)`\.$", re.M)
SOURCES = [
    path
    for folder in ("workflow", "blobtypes/expressions")
    for path in (ROOT / "server/blobhub_server" / folder).rglob("*.py")
]
OF_QUESTIONS = (PermissionDenied, NotFound, Renamed, AmbiguousReference, WrongBlobType, ContentLost, ExtraNotInstalled)
"""What the question to a model is refused with, beside the errors of inference."""

OF_ANSWERS = ("HTTP_STATUS", "INVALID_CREDENTIAL")
"""What `http.request` itself refuses."""
OF_CREDENTIALS = (NotFound, PermissionDenied, CredentialUnreadable, MasterKeyMissing)


@dataclass(frozen=True)
class Example:
    """A definition of the page, and its runs: the input of each, with what comes of it as the page has it."""

    title: str
    document: str
    runs: tuple[tuple[str, str], ...]


def examples() -> Iterator[Example]:
    """Every section of the page that has a definition."""
    for title, section in re.findall(r"^###? (.*?)\n(.*?)(?=^##|\Z)", PAGE, re.M | re.S):
        for document in re.findall(r"```json\n(.*?)```", section, re.S):
            yield Example(title=title, document=document, runs=tuple(RUN.findall(section)))


EXAMPLES = list(examples())


def test_every_definition_of_the_page_is_an_example_with_runs() -> None:
    assert len(EXAMPLES) == PAGE.count("```json") >= 12
    assert [example.title for example in EXAMPLES if not example.runs] == []


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.title)
async def test_a_definition_of_the_page_runs_as_it_says(api: Api, example: Example) -> None:
    session_id = await api.session(example.document)
    checked = await ask(api, "CheckDefinition", revision=await revision_of(api, session_id), document=example.document)
    assert checked.runnable
    assert not checked.problems
    for given, expected in example.runs:
        assert await told(api, session_id, json.loads(given)) == in_order(expected)


async def revision_of(api: Api, session_id: str) -> str:
    return (await ask(api, "GetSession", session=session_id)).session.revision_id


async def told(api: Api, session_id: str, given: dict[str, Any]) -> str:
    """The result of a run, or the reason of its failure."""
    execution = await run(api, session_id, **given)
    if execution.failure.reason:
        return str(execution.failure.reason)
    return in_order(json.dumps(json_field.read(execution, "result")[0]))


def in_order(told: str) -> str:
    """JSON with its keys in order, which a Value has in none; a reason as it is."""
    try:
        return json.dumps(json.loads(told), sort_keys=True)
    except json.JSONDecodeError:
        return told


def test_every_reason_that_is_given_is_told_and_no_other() -> None:
    told = {*reasons.OF_EXECUTIONS, *reasons.OF_COMPONENTS, *reasons.OF_TASKS, *reasons.OF_CHATS, *OF_ANSWERS}
    trees = [ast.parse(path.read_text()) for path in SOURCES if path.name != "reasons.py"]
    assert {reason for tree in trees for reason in given_in(tree)} - told - {*reasons.OF_HTTP} == set()
    written = {node.value for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    assert told - written == set()


def test_every_reason_why_a_model_has_no_answer_is_told_and_no_other() -> None:
    own = {kind.reason for kind in error_classes(InferenceError)}
    assert reasons.OF_MODELS.keys() == own | {kind.reason for kind in OF_QUESTIONS}


def test_every_reason_why_another_execution_has_no_result_is_told() -> None:
    own = {child.STOPPED, child.DELETED, child.TOO_MUCH, DefinitionNotRunnable.reason, SessionNotOpen.reason}
    others = {kind.reason for kind in (*OF_QUESTIONS, LimitExceeded)} - {ExtraNotInstalled.reason}
    assert reasons.OF_CHILDREN.keys() == own | others


def test_every_reason_why_nothing_comes_of_a_request_is_told_and_no_other() -> None:
    outbound = {f"HTTP_{kind.reason}" for kind in OutboundError.__subclasses__()}
    assert reasons.OF_HTTP.keys() == outbound | {*OF_ANSWERS} | {kind.reason for kind in OF_CREDENTIALS}


def given_in(tree: ast.Module) -> Iterator[str]:
    """The reasons that a module gives: what is called `reason` in it, and the first argument of what fails an execution."""
    for node in ast.walk(tree):
        match node:
            case ast.keyword(arg="reason", value=ast.Constant(value=str(reason))):
                yield reason
            case ast.Assign(targets=[ast.Name(id="reason")], value=ast.Constant(value=str(reason))):
                yield reason
            case ast.Call(func=ast.Name(id="Failed" | "ScriptError"), args=[ast.Constant(value=str(reason)), *_]):
                yield reason
            case ast.Call(func=ast.Attribute(attr="_end_with" | "_error"), args=[ast.Constant(value=str(reason)), *_]):
                yield reason
