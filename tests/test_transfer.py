"""Presigned transfers: parts that come and objects that go by URL, in constant memory, and only as they were signed."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import random
import socket
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import acme
import google_crc32c
import httpx
import pytest
from blobhub_server import app
from blobhub_server.clock import utc_now
from blobhub_server.http import transfer
from blobhub_server.objects.contract import UploadPart
from blobhub_server.objects.grant import Grant, SignedRequest
from blobhub_server.objects.outline import BLOCK_BYTES
from figures import Figure
from joining import Opened
from scale import scaled
from served import Api
from several_servers import together
from waiting import until, within_deadline

pytestmark = pytest.mark.either_database


class Transfers:
    """A server with local objects, what signs for it, and a client of its HTTP port."""

    def __init__(self, opened: Opened, api: Api, key_id: str, client: httpx.AsyncClient) -> None:
        self.host, self.api, self.key_id, self.client = opened.host, api, key_id, client
        self.objects = opened.host.objects

    async def to_get(self, digest: str, **changed: object) -> SignedRequest:
        grant = Grant.to_get(digest, actor_id=self.key_id, now=utc_now())
        return await self.objects.sign(grant)

    async def to_put(self, upload_id: str, part: int, size: int) -> SignedRequest:
        return await self.objects.sign(Grant.to_put(upload_id, part, size, actor_id=self.key_id, now=utc_now()))

    async def put(self, upload_id: str, part: int, data: bytes, **headers: str) -> httpx.Response:
        signed = await self.to_put(upload_id, part, len(data))
        return await self.client.put(signed.url, content=data, headers={n.replace("_", "-"): v for n, v in headers.items()})


@pytest.fixture
async def transfers(tmp_path: Path, database_url: str) -> AsyncIterator[Transfers]:
    async with together(tmp_path, database_url, count=1) as ((opened, api),), httpx.AsyncClient() as client:
        await acme.organization(api)
        made = await acme.key(api, "acme")
        yield Transfers(opened, api, made.api_key.id, client)


async def test_parts_come_by_their_urls_and_the_object_goes_by_its_own(transfers: Transfers) -> None:
    contents = [random.Random(n).randbytes(size) for n, size in enumerate([3 * BLOCK_BYTES + 5, 0, 70_000])]
    upload_id, sent = str(uuid4()), []
    for number, data in enumerate(contents, start=1):
        answer = await transfers.put(upload_id, number, data)
        assert answer.status_code == 200, answer.text
        assert answer.headers["etag"] == f'"{hashlib.sha256(data).hexdigest()}"'
        sent.append(UploadPart(number=number, size=len(data), etag=answer.headers["etag"].strip('"')))
    assert await transfers.objects.parts(upload_id) == sent
    digest = await transfers.objects.compose(upload_id, sent)
    whole = b"".join(contents)
    signed = await transfers.to_get(digest)
    answer = await transfers.client.get(signed.url)
    assert answer.content == whole
    assert answer.headers["etag"] == f'"{digest}"'
    assert answer.headers["repr-digest"] == f"sha-256=:{base64.b64encode(bytes.fromhex(digest)).decode()}:"
    for first, last in ((0, 0), (BLOCK_BYTES - 1, BLOCK_BYTES), (5, len(whole) + 9)):
        answer = await transfers.client.get(signed.url, headers={"range": f"bytes={first}-{last}"})
        assert (answer.status_code, answer.content) == (206, whole[first : last + 1])
        assert answer.headers["content-range"] == f"bytes {first}-{min(last, len(whole) - 1)}/{len(whole)}"
    answer = await transfers.client.head(signed.url)
    assert (answer.status_code, answer.headers["content-length"], answer.content) == (200, str(len(whole)), b"")
    answer = await transfers.client.get(signed.url, headers={"if-none-match": f'"{digest}"'})
    assert (answer.status_code, answer.content) == (304, b"")
    answer = await transfers.client.get(signed.url, headers={"range": f"bytes={len(whole)}-"})
    assert (answer.status_code, answer.headers["content-range"]) == (416, f"bytes */{len(whole)}")


async def test_checksums_are_compared_where_they_are_given(transfers: Transfers) -> None:
    data, upload_id = b"some bytes", str(uuid4())
    sha256 = base64.b64encode(hashlib.sha256(data).digest()).decode()
    crc32c = base64.b64encode(google_crc32c.Checksum(data).digest()).decode()
    wrong = base64.b64encode(b"\0" * 4).decode()
    for headers in (
        {"content_digest": f"sha-256=:{sha256}:"},
        {"content_digest": f"crc32c=:{crc32c}:, sha-256=:{sha256}:"},
        {"x_goog_hash": f"crc32c={crc32c},md5=AAAA"},
        {"content_digest": "md5=:AAAA:"},
    ):
        assert (await transfers.put(upload_id, 1, data, **headers)).status_code == 200
    for headers, reason in (
        ({"content_digest": f"sha-256=:{sha256[:-8]}AAAAAAA=:"}, "CHECKSUM_MISMATCH"),
        ({"x_goog_hash": f"crc32c={wrong}"}, "CHECKSUM_MISMATCH"),
        ({"x_goog_hash": f"crc32c={sha256}"}, "INVALID_CHECKSUM"),
        ({"content_digest": "sha-256"}, "INVALID_CHECKSUM"),
        ({"content_digest": "sha-256=:!:"}, "INVALID_CHECKSUM"),
    ):
        answer = await transfers.put(upload_id, 2, data, **headers)
        assert (answer.status_code, answer.json()["reason"]) == (400, reason)
    assert [part.number for part in await transfers.objects.parts(upload_id)] == [1]


async def test_a_body_of_another_size_than_signed_is_cut_off(transfers: Transfers) -> None:
    upload_id = str(uuid4())
    signed = await transfers.to_put(upload_id, 1, 1000)
    for size in (0, 999, 1001):
        answer = await transfers.client.put(signed.url, content=bytes(size))
        assert (answer.status_code, answer.json()["reason"]) == (400, "WRONG_SIZE")
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 10_000
            yield bytes(10_000)

    # The answer comes, or the connection ends, long before the client has no more to send.
    with pytest.raises((httpx.TransportError, AssertionError)):
        answer = await within_deadline(transfers.client.put(signed.url, content=endless()))
        assert answer.status_code == 200
    assert sent < 100 << 20

    async def short() -> AsyncIterator[bytes]:
        yield bytes(999)

    answer = await transfers.client.put(signed.url, content=short())
    assert (answer.status_code, answer.json()["reason"]) == (400, "WRONG_SIZE")
    assert await transfers.objects.parts(upload_id) == []


async def test_no_changed_url_is_accepted(transfers: Transfers, figure: Figure) -> None:
    dice, digest, upload_id = random.Random(11), await transfers.objects.put(b"some bytes"), str(uuid4())
    other = await transfers.objects.put(b"other bytes")
    tried = 0
    for number in range(scaled(5_000, least=100)):
        if number % 100 == 0:  # A URL that has expired would be refused for that.
            urls = [("GET", (await transfers.to_get(digest)).url), ("PUT", (await transfers.to_put(upload_id, 7, 10)).url)]
        for method, url in urls:
            changed = mutant(dice, url, [digest, other, upload_id])
            if changed == url:
                continue
            try:
                answer = await transfers.client.request(method, changed, content=b"0123456789" if method == "PUT" else None)
            except (httpx.InvalidURL, httpx.UnsupportedProtocol, httpx.ConnectError):
                continue
            assert answer.status_code in {400, 403, 404, 405}, changed
            tried += 1
    assert tried > scaled(5_000, least=100)
    assert await transfers.objects.parts(upload_id) == []
    for method, url in urls:
        assert (await transfers.client.request(method, url, content=b"0123456789")).status_code == 200
    figure(f"{tried} changed URLs: none was accepted")


def mutant(dice: random.Random, url: str, words: list[str]) -> str:
    """A URL that differs somewhere behind its address."""
    start = url.index("/v1/") + 1
    position = dice.randrange(start, len(url))
    match dice.randrange(5):
        case 0:
            changed = url[:position] + dice.choice("0123456789abcdef&=/%?.-") + url[position + 1 :]
        case 1:
            changed = url[:position] + url[position + 1 :]
        case 2:
            changed = url[:position] + dice.choice("0123456789abcdef") + url[position:]
        case 3:
            word = dice.choice(words)
            changed = url.replace(next((text for text in words if text in url), "x"), word)
        case _:
            pairs = url.partition("?")[2].split("&")
            dice.shuffle(pairs)
            pairs = pairs[1:] if dice.random() < 0.5 else [*pairs, dice.choice(pairs)]
            changed = url.partition("?")[0] + "?" + "&".join(pairs)
    return changed


async def test_a_url_is_for_one_method(transfers: Transfers) -> None:
    digest, upload_id = await transfers.objects.put(b"some bytes"), str(uuid4())
    get, put = await transfers.to_get(digest), await transfers.to_put(upload_id, 1, 3)
    assert (await transfers.client.put(get.url, content=b"abc")).status_code == 405
    assert (await transfers.client.get(put.url)).status_code == 405
    assert (await transfers.client.delete(get.url)).status_code == 405


@pytest.mark.both_databases
async def test_a_url_ends_with_its_time_and_with_its_key(transfers: Transfers) -> None:
    digest = await transfers.objects.put(b"some bytes")
    past = Grant.to_get(digest, actor_id=transfers.key_id, now=utc_now() - timedelta(hours=1))
    answer = await transfers.client.get((await transfers.objects.sign(past)).url)
    assert (answer.status_code, answer.json()["reason"]) == (403, "BAD_SIGNATURE")
    signed = await transfers.to_get(digest)
    assert (await transfers.client.get(signed.url)).status_code == 200
    await acme.revoke_key(transfers.api, transfers.key_id)
    answer = await transfers.client.get(signed.url)
    assert (answer.status_code, answer.json()["reason"]) == (403, "PERMISSION_DENIED")


@pytest.mark.both_databases
async def test_a_transfer_under_way_ends_when_its_key_is_revoked(
    transfers: Transfers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "RECHECK_SECONDS", 0.0)
    upload_id, revoked = str(uuid4()), asyncio.Event()
    signed = await transfers.to_put(upload_id, 1, 4 * BLOCK_BYTES)

    async def body() -> AsyncIterator[bytes]:
        yield bytes(BLOCK_BYTES)
        await acme.revoke_key(transfers.api, transfers.key_id)
        revoked.set()
        for _ in range(3):
            yield bytes(BLOCK_BYTES)

    headers = {"content-length": str(4 * BLOCK_BYTES)}
    try:
        answer = await transfers.client.put(signed.url, content=body(), headers=headers)
    except httpx.TransportError:
        pass
    else:
        assert answer.status_code == 403
    assert revoked.is_set()
    assert await transfers.objects.parts(upload_id) == []


async def test_a_client_that_stops_in_the_middle_leaves_nothing(transfers: Transfers, tmp_path: Path) -> None:
    upload_id = str(uuid4())
    signed = httpx.URL((await transfers.to_put(upload_id, 1, 4 * BLOCK_BYTES)).url)
    _, writer = await asyncio.open_connection(signed.host, signed.port)
    head = f"PUT {signed.raw_path.decode()} HTTP/1.1\r\nHost: x\r\nContent-Length: {4 * BLOCK_BYTES}\r\n\r\n"
    writer.write(head.encode() + bytes(2 * BLOCK_BYTES))
    parts = tmp_path / "data" / "objects" / "parts"
    await until(lambda: bool(list(parts.iterdir())))
    writer.transport.abort()
    await until(lambda: not list(parts.iterdir()))
    assert await transfers.objects.parts(upload_id) == []


async def test_nobody_has_more_transfers_under_way_than_may_be(
    transfers: Transfers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "MAX_TRANSFERS_PER_ACTOR", 2)
    upload_id, go_on, take, under_way = str(uuid4()), asyncio.Event(), transfer.Transfers._take, 0

    async def count(*given: object) -> str:
        nonlocal under_way
        under_way += 1
        return await take(*given)

    monkeypatch.setattr(transfer.Transfers, "_take", count)

    async def slow() -> AsyncIterator[bytes]:
        yield b"a"
        await go_on.wait()
        yield b"b"

    signed = [await transfers.to_put(upload_id, number, 2) for number in (1, 2, 3)]
    sending = [asyncio.create_task(transfers.client.put(one.url, content=slow())) for one in signed[:2]]
    await until(lambda: under_way == 2)
    answer = await transfers.client.put(signed[2].url, content=b"ab")
    assert (answer.status_code, answer.json()["reason"], answer.headers["retry-after"]) == (503, "OVERLOADED", "1")
    go_on.set()
    assert [answer.status_code for answer in await asyncio.gather(*sending)] == [200, 200]
    assert (await transfers.client.put(signed[2].url, content=b"ab")).status_code == 200


async def test_harmed_bytes_are_not_sent(transfers: Transfers, tmp_path: Path) -> None:
    digest = await transfers.objects.put(b"some bytes")
    path = tmp_path / "data" / "objects" / "sha256" / digest[:2] / digest[2:]
    path.write_bytes(b"same bytes")
    answer = await transfers.client.get((await transfers.to_get(digest)).url)
    assert (answer.status_code, answer.json()["reason"]) == (500, "CONTENT_LOST")
    path.unlink()
    assert (await transfers.client.get((await transfers.to_get(digest)).url)).status_code == 404


async def test_bytes_that_are_not_read_are_held_back_and_then_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that reads nothing ends its transfer, and the server keeps no more than a few blocks for it."""
    ended = asyncio.Event()

    class Noted(transfer.Transfers):
        async def _sending(self, *given: object) -> AsyncIterator[bytes]:
            try:
                async with aclosing(super()._sending(*given)) as chunks:
                    async for chunk in chunks:
                        yield chunk
            finally:
                ended.set()

    monkeypatch.setattr(app, "Transfers", Noted)
    async with together(tmp_path, f"sqlite:///{tmp_path}/one.db", count=1, max_unread_seconds=0.2) as ((opened, _),):
        digest = await opened.host.objects.put(bytes(64 << 20))
        url = httpx.URL((await opened.host.objects.sign(Grant.to_get(digest, actor_id="", now=utc_now()))).url)
        connection = await asyncio.to_thread(socket.create_connection, (url.host, url.port))
        connection.sendall(f"GET {url.raw_path.decode()} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        await within_deadline(ended.wait())

        def rest() -> int:
            total = 0
            try:
                while data := connection.recv(1 << 20):
                    total += len(data)
            except ConnectionError:
                pass
            return total

        assert await within_deadline(asyncio.to_thread(rest)) < 64 << 20
        connection.close()
