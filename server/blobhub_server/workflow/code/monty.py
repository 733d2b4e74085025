"""The default runner: Monty, an interpreter of a Python subset in Rust, in worker processes.

A script has no files, no network and no processes; its time, memory and recursion are limited, and a worker that dies
takes nothing with it. Of the modules the hosted platform offers, Monty has json, time, datetime, functools, copy,
dataclasses, decimal, math, re and base64; `uuid` is added here; zoneinfo, traceback, textwrap, abc and io are missing.

Fairness: a script first runs in the *quick* lane with a small budget. A script that exceeds it is stopped and run again from
its beginning in the *slow* lane, with the whole budget and other workers; its source is remembered as slow. So endless
scripts delay each other, and hardly any others. Running a script again is safe because it has no effects outside; what it
emits in the quick lane is held back until it has ended.
"""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from functools import partial
from types import TracebackType
from typing import Any

import pydantic_monty as monty

from blobhub_server.blobtypes import json_text
from blobhub_server.errors import InvalidValue
from blobhub_server.workflow.code.contract import ScriptError, ScriptResult

QUICK_SECONDS = 0.05
MAX_EMITTED = 1_000
RECURSION = 200
_REMEMBERED = 4096

PRELUDE = """
_ended = {"route": "success", "terminal": False, "outputs": {}}

def get_data_input(route):
    return data_inputs.get(route)

def set_data_output(route, value, persist=False):
    _ended["outputs"][route] = value

def set_result(route, terminal=False):
    _ended["route"] = route
    _ended["terminal"] = bool(terminal)

def exit():
    raise SystemExit()

def create_value(data_type, data):
    names = {"boolean": "flag", "choice": "id"}
    return {"type": data_type, names.get(data_type, data_type): data}

def create_message(role, text=None, attribute_id=None):
    content = [] if text is None else [{"type": "text", "text": text}]
    attributes = {} if attribute_id is None else {"id": attribute_id}
    return {"type": "message", "message": {"role": role, "content": content, "attributes": attributes}}
"""
_SCRIPT = "<python-input-1>"
"""How Monty calls the second thing it is fed, which is the user's script."""

_MODULES = {"uuid": monty.ExternalModule({"uuid4": lambda: str(uuid.uuid4())})}

_REASONS = {
    "TimeoutError": "SCRIPT_TIMEOUT",
    "MemoryError": "SCRIPT_MEMORY",
    "RecursionError": "SCRIPT_RECURSION",
}


class MontyRunner:
    """Implements ScriptRunner. Enter it to start the workers; leave it to end them."""

    def __init__(self, *, workers: int, seconds: float, memory_mib: int) -> None:
        self._workers = workers
        self._seconds = seconds
        self._memory = memory_mib << 20
        self._stack = AsyncExitStack()
        self._lanes: dict[bool, monty.AsyncMonty] = {}
        self._opening = asyncio.Lock()
        self._slow: OrderedDict[str, None] = OrderedDict()

    async def __aenter__(self) -> MontyRunner:
        """Start the quick lane; the slow one starts when a script needs it."""
        await self._lane(slow=False)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End all workers."""
        await self._stack.aclose()

    async def run(self, source: str, inputs: Mapping[str, Any], emit: Callable[[Any], None]) -> ScriptResult:
        digest = hashlib.sha256(source.encode()).hexdigest()
        if digest not in self._slow and self._seconds > QUICK_SECONDS:
            emitted: list[Any] = []
            try:
                result = await self._run(source, inputs, emitted.append, slow=False)
            except ScriptError as error:
                if error.reason not in ("SCRIPT_TIMEOUT", "SCRIPT_CRASHED"):
                    raise
                self._remember(digest)
            else:
                for value in emitted:
                    emit(value)
                return result
        return await self._run(source, inputs, emit, slow=True)

    def _remember(self, digest: str) -> None:
        self._slow[digest] = None
        if len(self._slow) > _REMEMBERED:
            self._slow.popitem(last=False)

    async def _lane(self, *, slow: bool) -> monty.AsyncMonty:
        async with self._opening:
            lane = self._lanes.get(slow)
            if lane is None:
                lane = self._lanes[slow] = monty.AsyncMonty(
                    max_processes=self._workers,
                    request_timeout=self._seconds + 2,
                    feed_duration_limit_grace=0.5,
                )
                await self._stack.enter_async_context(lane)
            return lane

    async def _run(self, source: str, inputs: Mapping[str, Any], emit: Callable[[Any], None], *, slow: bool) -> ScriptResult:
        limits: monty.ResourceLimits = {
            "max_feed_duration_secs": self._seconds if slow else QUICK_SECONDS,
            "max_memory": self._memory,
            "max_recursion_depth": RECURSION,
            "max_suspensions": MAX_EMITTED,
        }
        lane = await self._lane(slow=slow)
        refused: list[ScriptError] = []
        try:
            async with lane.checkout(limits=limits, external_modules=_MODULES, os_policy={"sleep": "zero"}) as session:
                await session.feed_run(PRELUDE, inputs={"data_inputs": dict(inputs)})
                try:
                    await session.feed_run(
                        source,
                        external_lookup={"emit_output": partial(_emit, emit, refused)},
                        print_callback=_ignore,
                    )
                except monty.MontyRuntimeError as error:
                    if not _is_exit(error):
                        raise
                ended = await session.feed_run("_ended")
        except monty.MontyError as error:
            raise _script_error(error, refused) from None
        return ScriptResult(route=str(ended["route"]), outputs=_outputs(ended["outputs"]), terminal=ended["terminal"])


def _emit(emit: Callable[[Any], None], refused: list[ScriptError], value: Any) -> None:
    """Emit a value. One that is refused is an error in the script, which may handle it."""
    try:
        plain = _json(value)
    except ScriptError as error:
        refused.append(error)
        raise ValueError(error.message) from None
    emit(plain)


def _ignore(stream: str, text: str) -> None:
    """Printed text goes nowhere; `emit_output` is for what others are to see."""


def _is_exit(error: monty.MontyRuntimeError) -> bool:
    return _type_name(error) == "SystemExit"


def _type_name(error: monty.MontyRuntimeError) -> str:
    return error.display(format="type-msg").partition(":")[0].strip()


def _script_error(error: monty.MontyError, refused: list[ScriptError]) -> ScriptError:
    if isinstance(error, monty.MontyCrashedError):
        reason = "SCRIPT_TIMEOUT" if error.timed_out else "SCRIPT_CRASHED"
        return ScriptError(reason, "the script's worker was ended", None)
    if isinstance(error, monty.MontySyntaxError):
        return ScriptError("SCRIPT_SYNTAX", str(error)[:500], _line(error))
    if isinstance(error, monty.MontyRuntimeError):
        said = error.display(format="type-msg")
        reason = _REASONS.get(_type_name(error), "SCRIPT_ERROR")
        if refused and refused[-1].message in said:
            reason = "SCRIPT_OUTPUT"
        return ScriptError(reason, said[:500], _line(error))
    return ScriptError("SCRIPT_ERROR", "the script cannot be run", None)


def _line(error: monty.MontySyntaxError | monty.MontyRuntimeError) -> int | None:
    """The innermost line of the user's script."""
    lines = [frame.line for frame in error.traceback() if frame.filename == _SCRIPT]
    return lines[-1] if lines else None


def _outputs(values: Mapping[Any, Any]) -> dict[str, Any]:
    """A script's outputs as plain JSON. Raises ScriptError when one of them is beyond its bounds, or all are together."""
    texts = {str(route): _text(value) for route, value in values.items()}
    size = sum(len(name.encode()) + len(text.encode()) for name, text in texts.items())
    if size > json_text.MAX_BYTES:
        raise ScriptError(
            "SCRIPT_OUTPUT", f"all outputs must be at most {json_text.MAX_BYTES} bytes as JSON, not {size}", None
        )
    return {route: json_text.load(text) for route, text in texts.items()}


def _json(value: Any) -> Any:
    """The value as plain JSON. Raises ScriptError when it is beyond its bounds, or not JSON."""
    return json_text.load(_text(value))


def _text(value: Any) -> str:
    try:
        return json_text.encode("an output", value)
    except InvalidValue as error:
        raise ScriptError("SCRIPT_OUTPUT", f"an output {error.violations[0].message}", None) from None
