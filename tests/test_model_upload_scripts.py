"""Uploads by random scripts: whatever is sent, repeated, left out, completed or cut off, they end as they have to."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import acme
import models
import pytest
from blobhub.v1 import model_upload_pb2 as pb
from blobhub_server import app
from blobhub_server.onnx import upload_upkeep
from calling import ask, outcome
from databases import select
from figures import Figure
from model_uploads import (
    ONNX,
    PART,
    STORES,
    Sender,
    collectors_at_rest,
    left_after_collecting,
    model_of,
    sending,
    sha256,
    store_objects,
    stored,
)
from scale import scaled
from served import Api, connected, served
from waiting import until
from wall_clock import WallClock

SCRIPTS = scaled(scaled(500, least=50), least=13)
"""On each of two databases and two object stores. Each takes a second or two, so there are far fewer on a small scale."""
MODEL = model_of(4 * PART)
ARCHIVE = models.archive(MODEL)
WEIGHTS = 3
"""A part of the model that has nothing but weights: with others it is another sound model, and the archive is damaged."""


class Place:
    """A server that can be started anew, on the same database and the same objects."""

    def __init__(self, stack: AsyncExitStack, folder: Path, url: str, clock: WallClock) -> None:
        self._stack, self._folder, self._url, self.clock = stack, folder, url, clock
        self._key, self._running = "", AsyncExitStack()
        self.api: Api

    async def restart(self) -> None:
        await self._running.aclose()
        self._running = await self._stack.enter_async_context(AsyncExitStack())
        server = await self._running.enter_async_context(served(self._folder, self._url))
        self._key = self._key or server.admin_key
        self.api = await self._running.enter_async_context(connected(server.address, self._key))

    async def settled(self) -> None:
        """Wait until it is noted of all uploads that they have ended."""

        async def all_are() -> bool:
            return await select(self._url, "SELECT count(*) FROM model_uploads WHERE end_time IS NULL") == [(0,)]

        await until(all_are)


class Script:
    """One upload, by the throw of a die: what is done to it, and what has to come of it."""

    def __init__(self, dice: random.Random, place: Place, sender: Sender) -> None:
        self.dice, self.place, self.sender = dice, place, sender
        self.is_archive = sender.data is ARCHIVE
        self.content = {number: sender.part(number) for number in sender.numbers}
        self.sent: dict[int, bytes] = {}
        self.operation_id = ""
        self.signed: pb.SignedModelUploadPart

    async def play(self) -> None:
        steps = [self.put, self.put, self.put, self.put_another, self.put_wrong_size, self.complete_too_early, self.restart]
        for _ in range(self.dice.randrange(8)):
            await self.dice.choice(steps[: 7 if self.dice.random() < 0.1 else 6])()
        await self.dice.choice([self.send_all_and_complete] * 5 + [self.cancel, self.expire])()

    async def put(self) -> None:
        numbers = self.dice.choices(self.sender.numbers, k=self.dice.randrange(1, 4))
        for number in numbers:
            answer = await self.sender.put(number, self.content[number])
            assert answer.status_code == 200, answer.text
            self.sent[number] = self.content[number]

    async def put_another(self) -> None:
        self.content[WEIGHTS] = self.dice.randbytes(PART)
        await self.sender.put(WEIGHTS, self.content[WEIGHTS])
        self.sent[WEIGHTS] = self.content[WEIGHTS]

    async def put_wrong_size(self) -> None:
        number = self.dice.choice(self.sender.numbers)
        size = self.dice.choice([0, 1, len(self.content[number]) - 1, len(self.content[number]) + 1])
        assert (await self.sender.put(number, bytes(size))).status_code in (400, 413)

    async def complete_too_early(self) -> None:
        if len(self.sent) < len(self.content):
            assert await outcome(self.sender.complete()) == "PARTS_MISMATCH"
        etags = self.sender.etags | {self.dice.choice(self.sender.numbers): sha256(b"another")}
        assert await outcome(self.sender.complete(parts=self.sender.sent(etags))) == "PARTS_MISMATCH"
        assert await self.sender.state() == "OPEN"

    async def restart(self) -> None:
        await self.place.restart()
        self.sender.api = self.place.api
        assert [part.number for part in await self.sender.parts()] == sorted(self.sent)

    async def cancel(self) -> None:
        await self.sender.cancel()
        assert await self.sender.ended() == "CANCELLED"
        assert await outcome(self.sender.complete()) == "UPLOAD_NOT_OPEN"

    async def expire(self) -> None:
        """Be a week ahead for a while, but not for long: Google signs nothing for that time."""
        self.place.clock.ahead = timedelta(days=7)
        assert await self.sender.state() == "EXPIRED"
        assert await outcome(self.sender.complete()) == "UPLOAD_NOT_OPEN"
        await self.place.settled()
        self.place.clock.ahead = timedelta(0)

    async def send_all_and_complete(self) -> None:
        missing = [number for number in self.sender.numbers if number not in self.sent]
        self.dice.shuffle(missing)
        await asyncio.gather(*(self.sender.put(number, self.content[number]) for number in missing))
        (self.signed,) = await self.sender.sign(WEIGHTS)
        ids = await asyncio.gather(
            *(self.sender.complete(request_id=str(uuid4())) for _ in range(self.dice.choice([1, 1, 2, 5])))
        )
        (self.operation_id,) = {*ids}
        beside = self.dice.choice([self.nothing] * 5 + [self.cancel_operation, self.send_again, self.restart_meanwhile])
        await beside()
        assert await self.sender.complete() == self.operation_id
        assert await self.sender.ended() in self.expected(beside.__name__)

    def expected(self, beside: str) -> list[str]:
        """The states that the upload may end in."""
        announced, whole = self.sender.upload.sha256, b"".join(self.content.values())
        is_sound = not self.is_archive or whole == ARCHIVE
        right = "COMPLETED" if is_sound and announced in ("", sha256(whole)) else "FAILED"
        others = {"cancel_operation": ["CANCELLED"], "send_again": ["FAILED"]}
        return [right, *others.get(beside, [])]

    async def nothing(self) -> None:
        assert await outcome(self.sender.cancel()) == "UPLOAD_NOT_OPEN"

    async def cancel_operation(self) -> None:
        assert await outcome(ask(self.place.api, "CancelOperation", operation=self.operation_id)) in (
            "OK",
            "OPERATION_ENDED",
        )

    async def send_again(self) -> None:
        """Send another part with a request that was signed before: no other is signed any more."""
        assert await outcome(self.sender.sign(WEIGHTS)) == "UPLOAD_NOT_OPEN"
        answer = await self.sender.send(self.signed, self.dice.randbytes(PART))
        assert answer.status_code == 200, answer.text

    async def restart_meanwhile(self) -> None:
        await self.place.restart()
        self.sender.api = self.place.api

    async def check(self, blob: str) -> str:
        """Look whether the draft has just what it has to have; the digest of the model."""
        state, digest = await self.sender.state(), await stored(self.place.api, f"acme/{blob}@draft")
        model = MODEL if self.is_archive else b"".join(self.content.values())
        assert digest == (sha256(model) if state == "COMPLETED" else "")
        return digest


@asynccontextmanager
async def standing(folder: Path, url: str, clock: WallClock) -> AsyncIterator[Place]:
    """A place with its server running."""
    async with AsyncExitStack() as stack:
        place = Place(stack, folder, url, clock)
        await place.restart()
        await acme.organization(place.api)
        yield place


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", STORES)
async def test_uploads_by_random_scripts_end_as_they_have_to(
    tmp_path: Path,
    database_url: str,
    kind: str,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    figure: Figure,
) -> None:
    clock, collectors = WallClock(), collectors_at_rest(monkeypatch)
    store_objects(kind, request, monkeypatch)
    monkeypatch.setattr(app, "utc_now", clock)
    monkeypatch.setattr(upload_upkeep, "LOOK_SECONDS", 0.1)
    kept, ends = set(), Counter[str]()
    async with standing(tmp_path / "data", database_url, clock) as place:
        for number in range(SCRIPTS):
            dice = random.Random(number)
            await acme.blob(place.api, f"acme/scorer-{number}", ONNX)
            data, form = (MODEL, "MODEL_FORM_ONNX") if dice.random() < 0.8 else (ARCHIVE, "MODEL_FORM_TAR_GZ")
            announced = {"form": form} | ({"sha256": sha256(data)} if dice.random() < 0.5 else {})
            async with sending(place.api, data, revision=f"acme/scorer-{number}@draft", **announced) as sender:
                script = Script(dice, place, sender)
                await script.play()
                kept.add(await script.check(f"scorer-{number}"))
                ends[await sender.state()] += 1
        await place.settled()
        objects, uploads = await left_after_collecting(collectors[-1])
        assert uploads == []
        assert objects == {digest for (digest,) in await select(database_url, "SELECT DISTINCT digest FROM entries")}
        assert kept - {""} <= objects
    figure(f"{SCRIPTS} scripts: {', '.join(f'{count} {state}' for state, count in sorted(ends.items()))}")
