"""Runs the processing of models, each in a process of its own that nothing but its answer comes out of."""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import suppress
from dataclasses import asdict
from tempfile import TemporaryDirectory
from typing import BinaryIO

from blobhub_server.background import uninterrupted
from blobhub_server.objects.disk import storage_errors
from blobhub_server.onnx import confinement
from blobhub_server.onnx.processing.limits import ProcessingLimits
from blobhub_server.onnx.processing.report import Report, decode_outcome
from blobhub_server.onnx.refusal import RefusalReason, Refused
from blobhub_server.onnx.runtime import require_extra
from blobhub_server.process_group import Output, ProcessGroup
from blobhub_server.turnstile import Party, Turnstile

CHILD = "blobhub_server.onnx.processing.child"
MAX_SAID_BYTES = 8 << 10
"""How much is kept of what a process writes to its standard error."""


class ModelProcessor:
    """Processes models, so many at once. Those who wait go round by their parties."""

    def __init__(self, at_once: int) -> None:
        self._turnstile = Turnstile(at_once)

    async def process(self, model: BinaryIO, limits: ProcessingLimits, party: Party) -> Report | Refused:
        """What an open file with a model's bytes holds, or why it is refused. It is read from its beginning.

        The process gets the open file, so it knows no path. When it crashes, takes too long or runs out of memory, that is a
        refusal, too: the model has made it do so. When the caller is cancelled, the process and all that it may have started
        are killed before this ends. Raises ExtraMissing; where no process can be started now, Overloaded, StorageFull or
        StorageUnavailable.
        """
        require_extra()
        async with self._turnstile.turn(party):
            model.seek(0)
            with storage_errors():
                made = TemporaryDirectory(prefix="blobhub-model-", ignore_cleanup_errors=True)
            with made as folder:
                return await _process(model, limits, folder)


async def _process(model: BinaryIO, limits: ProcessingLimits, folder: str) -> Report | Refused:
    # -I: neither the folder nor the environment adds modules to what the process imports. -B: it writes no files.
    command = (sys.executable, "-I", "-B", "-m", CHILD, json.dumps(asdict(limits)))
    answer, said = Output(4 * limits.max_document_bytes + (1 << 20)), Output(MAX_SAID_BYTES)
    process = ProcessGroup(*command, cwd=folder, env=confinement.ENVIRONMENT, stdin=model, stdout=answer, stderr=said)
    try:
        async with asyncio.timeout(limits.max_wall_seconds):
            returncode = await process.wait()
    except TimeoutError:
        return _too_long(limits)
    finally:
        await uninterrupted(process.end())
    with suppress(ValueError, KeyError, TypeError):
        return decode_outcome(answer.data)
    return _end_of(returncode, said.data, limits)


def _too_long(limits: ProcessingLimits) -> Refused:
    return Refused(
        reason=RefusalReason.LIMITS,
        message=f"checking the model took more than {limits.max_cpu_seconds} s of processor time"
        f" or {limits.max_wall_seconds:g} s in all",
    )


def _end_of(returncode: int, said: bytes, limits: ProcessingLimits) -> Refused:
    """What it means that a process has ended without an answer."""
    if confinement.ended_for_memory(said):
        return Refused(
            reason=RefusalReason.LIMITS,
            message=f"checking the model took more than {limits.max_memory_bytes >> 20} MiB of memory",
        )
    if confinement.ended_for_time(returncode):
        return _too_long(limits)
    ending = confinement.describe_end(returncode)
    return Refused(
        reason=RefusalReason.UNLOADABLE, message=f"the process that checked the model ended with {ending} while it loaded it"
    )
