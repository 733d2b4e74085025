"""The default runner: Monty, an interpreter of a Python subset in Rust, in worker processes.

A script has no files, no network and no processes; its time, memory and recursion are limited, and a worker that dies
takes nothing with it. Of the modules the hosted platform offers, Monty has json, time, datetime, functools, copy,
dataclasses, decimal, math, re and base64; `uuid` is added here; zoneinfo, traceback, textwrap, abc and io are missing.

Fairness: a script first runs in the *quick* lane with a small budget. A script that exceeds it is stopped and run again from
its beginning in the *slow* lane, with the whole budget and other workers; its source is remembered as slow. So endless
scripts delay each other, and hardly any others. Running a script again is safe because it has no effects outside; what it
emits and prints in the quick lane is held back until it has ended.
"""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from enum import Enum, auto
from functools import partial
from types import TracebackType
from typing import Any

import pydantic_monty as monty
import structlog

from blobhub_server.blobtypes import json_text
from blobhub_server.errors import InvalidValue, is_panic
from blobhub_server.turnstile import off_loop
from blobhub_server.workflow.code import prelude
from blobhub_server.workflow.code.calls import line_of_raise
from blobhub_server.workflow.code.contract import ScriptError, ScriptFlaw, ScriptResult
from blobhub_server.workflow.code.missing import SLEEPING, refusal_to_sleep
from blobhub_server.workflow.code.reading import flaw_of
from blobhub_server.workflow.code.voice import MAX_EMITTED, Voice
from blobhub_server.workflow.values import unwrap, wrap

log = structlog.get_logger()

QUICK_SECONDS = 0.05
RECURSION = 200
FLUSH_SECONDS = 0.05
"""How long text that is printed may wait for more of it, to be one event with that."""
_REMEMBERED = 4096
_PARTY = ("", "scripts")
"""Whose turn it is to have outputs read: a runner does not know whose a script is."""
_SCRIPT = "<python-input-1>"
"""How Monty calls the second thing it is fed, which is the user's script."""

_POLICY: monty.OSPolicy = {"sleep": "call_host"}
_MODULES = {"uuid": monty.ExternalModule({"uuid4": lambda: str(uuid.uuid4())})}

_NOT_MADE = "exceptions can only be called with zero or one string argument"
"""How Monty says that it cannot make an exception, without its line and as an error of its own."""
_REASONS = {
    "TimeoutError": "SCRIPT_TIMEOUT",
    "MemoryError": "SCRIPT_MEMORY",
    "RecursionError": "SCRIPT_RECURSION",
}


class Lane(Enum):
    """Workers of their own: for short scripts, for long ones, and to read scripts when a definition is checked."""

    QUICK = auto()
    SLOW = auto()
    READING = auto()


class MontyRunner:
    """Implements ScriptRunner. Enter it to start the workers; leave it to end them."""

    def __init__(self, *, workers: int, seconds: float, memory_mib: int) -> None:
        self._workers = workers
        self._seconds = seconds
        self._memory = memory_mib << 20
        self._stack = AsyncExitStack()
        self._lanes: dict[Lane, monty.AsyncMonty] = {}
        self._opening = asyncio.Lock()
        self._slow: OrderedDict[str, None] = OrderedDict()

    async def __aenter__(self) -> MontyRunner:
        """Start the quick lane; the others start when a script needs them."""
        await self._lane(Lane.QUICK)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End all workers."""
        await self._stack.aclose()

    async def read(self, sources: Sequence[str]) -> dict[str, ScriptFlaw]:
        lane = await self._lane(Lane.READING)
        found = {source: await flaw_of(source, lane, self._memory) for source in sources}
        return {source: flaw for source, flaw in found.items() if flaw is not None}

    async def run(
        self,
        source: str,
        inputs: Mapping[str, Any],
        *,
        emit: Callable[[Any], None],
        write: Callable[[str], None],
    ) -> ScriptResult:
        digest = hashlib.sha256(source.encode()).hexdigest()
        if digest not in self._slow and self._seconds > QUICK_SECONDS:
            held: list[Callable[[], None]] = []
            voice = Voice(lambda value: held.append(partial(emit, value)), lambda text: held.append(partial(write, text)))
            try:
                result = await self._run(source, inputs, voice, slow=False)
            except ScriptError as error:
                if error.reason not in ("SCRIPT_TIMEOUT", "SCRIPT_CRASHED"):
                    _say(held)
                    raise
                self._remember(digest)
            else:
                _say(held)
                return result
        return await self._run(source, inputs, Voice(emit, write), slow=True)

    def _remember(self, digest: str) -> None:
        self._slow[digest] = None
        if len(self._slow) > _REMEMBERED:
            self._slow.popitem(last=False)

    async def _lane(self, name: Lane) -> monty.AsyncMonty:
        async with self._opening:
            lane = self._lanes.get(name)
            if lane is None:
                lane = self._lanes[name] = monty.AsyncMonty(
                    max_processes=1 if name is Lane.READING else self._workers,
                    request_timeout=self._seconds + 2,
                    feed_duration_limit_grace=0.5,
                )
                await self._stack.enter_async_context(lane)
            return lane

    async def _run(self, source: str, inputs: Mapping[str, Any], voice: Voice, *, slow: bool) -> ScriptResult:
        try:
            return await _result(await self._feed(source, inputs, voice, slow=slow))
        except monty.MontyError as error:
            # The message of an error may be half as large as the script's memory: too long to be copied on the loop.
            failure = await asyncio.to_thread(_script_error, error, source, voice.refusals)
        except BaseException as error:
            if not is_panic(error):
                raise
            log.error("script_runner_panicked", panic=str(error)[:500])
            failure = ScriptError("SCRIPT_CRASHED", "the script has made its runner fail", None)
        # Raised out here, as the context of an error keeps what was being handled, with its message.
        try:
            raise failure
        finally:
            del failure  # Its traceback leads here: a cycle, which would hold what the script was given.

    async def _feed(self, source: str, inputs: Mapping[str, Any], voice: Voice, *, slow: bool) -> object:
        """Run a script in a worker; return what it has left there. Raises MontyError."""
        limits: monty.ResourceLimits = {
            "max_feed_duration_secs": self._seconds if slow else QUICK_SECONDS,
            "max_memory": self._memory,
            "max_recursion_depth": RECURSION,
            "max_suspensions": MAX_EMITTED,
        }
        lane = await self._lane(Lane.SLOW if slow else Lane.QUICK)
        async with lane.checkout(
            limits=limits, external_modules=_MODULES, os_policy=_POLICY, print_flush_interval=FLUSH_SECONDS
        ) as session:
            await session.feed_run(prelude.SOURCE, inputs=_given(inputs))
            try:
                await session.feed_run(
                    source + prelude.END, external_lookup={"_emit": voice.emit}, print_callback=voice.write, os=_refuse_sleep
                )
            except monty.MontyRuntimeError as error:
                if not isinstance(error.exception(), SystemExit):
                    raise
            return await session.feed_run(prelude.FINISH, print_callback=_ignore)


def _given(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """What a script is given: the platform's `data_inputs` are value objects, our `inputs` what is inside of them."""
    return {
        "data_inputs": {name: wrap(value) for name, value in inputs.items()},
        "_plain": {name: unwrap(value) for name, value in inputs.items()},
    }


def _say(held: list[Callable[[], None]]) -> None:
    """Say what was held back."""
    for saying in held:
        saying()


def _refuse_sleep(*, name: str, **_: Any) -> Any:
    """Answer what a script asks of an operating system, which it has not; to sleep has an error that says what to do."""
    module = name.removesuffix(".sleep")
    if name.endswith(".sleep") and module in SLEEPING:
        raise RuntimeError(refusal_to_sleep(module))
    return monty.NOT_HANDLED


def _ignore(stream: str, text: str) -> None:
    """Drop what is printed after the script has ended, by a function that it has put in the place of one of ours."""


def _script_error(error: monty.MontyError, source: str, refusals: Sequence[str]) -> ScriptError:
    if isinstance(error, monty.MontyCrashedError):
        if error.timed_out:
            return ScriptError("SCRIPT_TIMEOUT", "the script took longer than it may, and its worker was ended", None)
        return ScriptError("SCRIPT_CRASHED", "the script's worker has ended", None)
    if isinstance(error, monty.MontySyntaxError):
        return ScriptError("SCRIPT_SYNTAX", str(error)[:500], _line(error))
    if isinstance(error, monty.MontyRuntimeError):
        said = error.display(format="type-msg")[:500]
        if said.endswith(_NOT_MADE):
            message = "an exception takes no arguments or one text; write `raise ValueError(str(x))` for another value"
            return ScriptError("SCRIPT_ERROR", message, line_of_raise(source))
        reason = _REASONS.get(said.partition(":")[0].strip(), "SCRIPT_ERROR")
        refused = said.startswith((f"ValueError: {prelude.REFUSAL}", f"ValueError: {prelude.REFUSAL_OF_ALL}"))
        if refused or any(refusal in said for refusal in refusals[-1:]):
            reason = "SCRIPT_OUTPUT"
        return ScriptError(reason, said, _line(error))
    return ScriptError("SCRIPT_ERROR", "the script cannot be run", None)


def _line(error: monty.MontySyntaxError | monty.MontyRuntimeError) -> int | None:
    """The innermost line of the user's script."""
    lines = [frame.line for frame in error.traceback() if frame.filename == _SCRIPT]
    return lines[-1] if lines else None


async def _result(left: object) -> ScriptResult:
    """The result that a script has left. Raises ScriptError when it is not what `_finish` gives, or beyond its bounds."""
    match left:
        case [str(route), bool(terminal), dict(texts)] if _all_texts(texts):
            outputs = await off_loop(sum(map(len, texts.values())), _PARTY, partial(_outputs, texts))
            return ScriptResult(route=route, outputs=outputs, terminal=terminal)
    raise ScriptError("SCRIPT_OUTPUT", "the script has replaced the functions that give its outputs", None)


def _all_texts(texts: Mapping[Any, Any]) -> bool:
    return all(isinstance(name, str) and isinstance(text, str) for name, text in texts.items())


def _outputs(texts: Mapping[str, str]) -> dict[str, Any]:
    """A script's outputs. Raises ScriptError when one of them is beyond the bounds of a value, or all are together."""
    try:
        json_text.require_bounds_of_all("outputs", [*map(json_text.write, texts), *texts.values()])
    except InvalidValue as error:
        raise ScriptError("SCRIPT_OUTPUT", f"all outputs {error.violations[0].message}", None) from None
    try:
        return {name: json_text.parse("output", text)[0] for name, text in texts.items()}
    except InvalidValue as error:
        raise ScriptError("SCRIPT_OUTPUT", f"an output {error.violations[0].message}", None) from None
