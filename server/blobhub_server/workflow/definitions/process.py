"""Has large documents examined in a process of their own, which takes neither the server's memory nor its interpreter."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from blobhub_server.background import uninterrupted
from blobhub_server.errors import Overloaded
from blobhub_server.process_group import ProcessGroup
from blobhub_server.workflow.code.contract import ScriptFlaw
from blobhub_server.workflow.definitions.child import LENGTH_BYTES, Flaws, read_answer, request_of
from blobhub_server.workflow.definitions.document import Problem
from blobhub_server.workflow.definitions.examination import Verdict, verdict_of

CHILD = "blobhub_server.workflow.definitions.child"
TRIES = 2
"""How often a document is given to a process: one may be killed from outside."""
MAX_SECONDS = 120.0
"""How long one document may take. Seconds are usual for the largest, on a machine that is busy with others."""
IDLE_SECONDS = 60.0
"""How long the process stays when there is nothing to do."""

ReadScripts = Callable[[Sequence[str]], Awaitable[Mapping[str, ScriptFlaw]]]
"""Looks at scripts; the flaws of those that have one, by their text."""


class Examiner:
    """Examines documents, one at a time, in a process that is started for the first and stays for a while."""

    def __init__(self, lacking: Iterable[str] = ()) -> None:
        """`lacking` are the types of components that lack what they need here."""
        self._lacking = sorted(lacking)
        self._process: ProcessGroup | None = None
        self._connection: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._turn = asyncio.Lock()
        self._idle: asyncio.TimerHandle | None = None

    async def examine(self, document: bytes, read_scripts: ReadScripts) -> Verdict:
        """What is wrong with a document. Raises Overloaded when the process does not come to an end of it."""
        header, problems = await self._ask(document, None)
        if "scripts" in header:
            flaws = await read_scripts(header["scripts"])
            told = {text: (flaw.message, flaw.line, flaw.column) for text, flaw in flaws.items()}
            header, problems = await self._ask(document, told)
        if "error" in header:
            raise RuntimeError(header["error"])
        return await asyncio.to_thread(verdict_of, problems)

    async def _ask(self, document: bytes, flaws: Flaws | None) -> tuple[dict[str, Any], list[Problem]]:
        async with self._turn:
            if self._idle:
                self._idle.cancel()
            for _ in range(TRIES):
                try:
                    async with asyncio.timeout(MAX_SECONDS):
                        answer = await self._exchange(request_of(document, flaws))
                except (OSError, EOFError):
                    await self.end()
                    continue
                except TimeoutError:
                    break
                header, problems = await asyncio.to_thread(read_answer, answer)
                if header["is_last"]:
                    await self.end()
                self._idle = asyncio.get_running_loop().call_later(IDLE_SECONDS, self._kill)
                return header, problems
            await self.end()
            raise Overloaded

    async def _exchange(self, request: bytes) -> bytes:
        try:
            if self._process is None:
                await self._start()
            if self._connection is None or self._connection[1].is_closing():
                raise EOFError  # uvloop would raise a RuntimeError.
            reader, writer = self._connection
            writer.write(request)
            await writer.drain()
            length = int.from_bytes(await reader.readexactly(LENGTH_BYTES))
            return await reader.readexactly(length)
        except asyncio.CancelledError:
            self._kill()  # What it answers, or has answered by now, is nobody's, and not the next one's either.
            raise

    async def _start(self) -> None:
        # What it imports is what is imported here. It gets nothing else of the environment, so no secret is there.
        environment = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "MALLOC_ARENA_MAX": "1", "LC_ALL": "C.UTF-8"}
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                command = (sys.executable, "-m", CHILD, *self._lacking)
                self._process = ProcessGroup(*command, env=environment, stdin=theirs, stdout=theirs)
        except BaseException:
            ours.close()
            raise
        self._connection = await asyncio.open_unix_connection(sock=ours)

    def _kill(self) -> None:
        """Kill the process, and hear no more of it. Whoever asks next finds it gone, and starts another."""
        if self._process is not None:
            self._process.kill()
        if self._connection is not None:
            self._connection[1].close()

    async def end(self) -> None:
        """End the process, if there is one; the next document starts another."""
        if self._idle:
            self._idle.cancel()
        self._kill()
        process, self._process, self._connection = self._process, None, None
        if process is not None:
            await uninterrupted(process.end())


@asynccontextmanager
async def examining(lacking: Iterable[str] = ()) -> AsyncIterator[Examiner]:
    """An examiner, whose process ends with the block."""
    examiner = Examiner(lacking)
    try:
        yield examiner
    finally:
        await examiner.end()
