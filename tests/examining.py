"""Examines many models, each in a process of its own: `python examining.py LIMITS`, with a path in each line of its input.

What a process of the server has to load for each model is loaded once here, and forked. Each is answered by a line of JSON:
how the process has ended, and what it has said.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import sys
from asyncio.subprocess import PIPE
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from blobhub_server.onnx import confinement
from blobhub_server.onnx.processing.limits import ProcessingLimits
from blobhub_server.onnx.processing.processor import ModelProcessor, _end_of
from blobhub_server.onnx.processing.report import Report, decode_outcome, encode_outcome
from blobhub_server.onnx.refusal import ModelRefused, Refused


async def examine_all(folder: Path, models: Sequence[bytes], limits: ProcessingLimits) -> list[Report | Refused]:
    """What becomes of models, one after the other."""
    paths = [folder / f"examined-{number}" for number in range(len(models))]
    for path, data in zip(paths, models, strict=True):
        path.write_bytes(data)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-B", __file__, json.dumps(asdict(limits))),
        env=confinement.ENVIRONMENT,
        stdin=PIPE,
        stdout=PIPE,
    )
    told, _ = await process.communicate("".join(f"{path}\n" for path in paths).encode())
    assert process.returncode == 0
    return [_outcome(json.loads(line), limits) for line in told.splitlines()]


KNOWN: dict[str, Report | Refused] = {}


def examined_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have servers in this process find out once what a file holds, however often they are asked."""
    process = ModelProcessor.process

    async def remember(processor: ModelProcessor, model: BinaryIO, *more: Any) -> Report | Refused:
        model.seek(0)
        digest = hashlib.file_digest(model, "sha256").hexdigest()
        if digest not in KNOWN:
            KNOWN[digest] = await process(processor, model, *more)
        return KNOWN[digest]

    monkeypatch.setattr(ModelProcessor, "process", remember)


def _outcome(ended: dict[str, str | int], limits: ProcessingLimits) -> Report | Refused:
    try:
        return decode_outcome(str(ended["said"]).encode())
    except ValueError:
        return _end_of(int(ended["status"]), b"", limits)


def main() -> None:
    """Examine what is asked for."""
    from blobhub_server.onnx.processing.child import examination  # noqa: PLC0415  not in the process that asks

    limits = ProcessingLimits(**json.loads(sys.argv[1]))
    for line in sys.stdin:
        answers, answering = os.pipe()
        data, pid = Path(line.strip()).read_bytes(), os.fork()
        if not pid:
            confinement.limit_resources(limits.max_memory_bytes)
            confinement.limit_processor_time(limits.max_cpu_seconds)
            confinement.limit_time(limits.max_wall_seconds)
            confinement.open_nothing_more()
            try:
                said = encode_outcome(examination.examine(data, limits))
            except ModelRefused as refusal:
                said = encode_outcome(refusal.refused)
            with os.fdopen(answering, "wb") as file:
                file.write(said)
            os._exit(0)
        os.close(answering)
        with os.fdopen(answers, "rb") as file:
            said = file.read()
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        print(json.dumps({"status": status, "said": said.decode()}), flush=True)


if __name__ == "__main__":
    main()
