"""Has a worker of the sandbox read a script, and says why it cannot."""

from __future__ import annotations

import pydantic_monty as monty

from blobhub_server.workflow.code.contract import ScriptFlaw

_ATTEMPTS = 3
_LEAVE = "raise SystemExit()\n"
_PARSER = "The monty syntax parser does not yet support "
"""How Monty begins to say what of Python it does not have."""
_EXHAUSTED = ("TimeoutError", "MemoryError", "RecursionError")


async def flaw_of(source: str, lane: monty.AsyncMonty, max_memory: int) -> ScriptFlaw | None:
    """Why a script cannot be read; None when it can. All of it is read before its first line, which is ours and leaves."""
    for _ in range(_ATTEMPTS):
        try:
            async with lane.checkout(limits={"max_memory": max_memory}) as session:
                await session.feed_run(_LEAVE + source)
        except monty.MontySyntaxError as error:
            return _flaw(error)
        except monty.MontyRuntimeError as error:
            kind = error.display(format="type-msg").partition(":")[0].strip()
            if kind == "SystemExit":
                return None
            if kind not in _EXHAUSTED:
                return _flaw(error)
        except monty.MontyCrashedError:
            # A busy machine can end a worker too, so it is tried again.
            continue
    return ScriptFlaw(message="is more than the sandbox can read", line=0, column=0)


def _flaw(error: monty.MontySyntaxError | monty.MontyRuntimeError) -> ScriptFlaw:
    """What the worker says, with its place: below the line that was put before the script."""
    said = error.display(format="msg")[:500]
    lacking = said.removeprefix(_PARSER).removeprefix("the ")
    words = f"the sandbox has no {lacking}" if said.startswith(_PARSER) else f"is no Python: {said}"
    for frame in reversed(error.traceback()):
        return ScriptFlaw(message=words, line=max(frame.line - 1, 1), column=max(frame.column, 1))
    return ScriptFlaw(message=words, line=0, column=0)
