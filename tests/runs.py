"""Executions for tests: one that has ended, and the inputs in `failing/`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from blobhub.v1 import execution_pb2
from calling import ask
from served import Api

FAILING = Path(__file__).resolve().parent / "failing"
"""The small inputs that once failed."""


async def run(api: Api, session_id: str, definition: str = "workflow", **inputs: Any) -> execution_pb2.Execution:
    """Run a definition, with JSON values as inputs; the execution as it ended."""
    data = [{"alias": alias, "value_json": json.dumps(value)} for alias, value in inputs.items()]
    spec = {"definition": definition, "input_data": data}
    ended: execution_pb2.Execution = (await ask(api, "RunExecution", session=session_id, spec=spec)).execution
    return ended


def failing(name: str) -> str:
    """The text of one of those inputs."""
    return (FAILING / name).read_text(encoding="utf-8")
