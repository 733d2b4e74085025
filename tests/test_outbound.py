"""Requests that go out: to where they may, with what may go there, and within bounds. See also test_outbound_targets.py."""

from __future__ import annotations

import asyncio
import gzip
import ssl
import zlib
from pathlib import Path
from typing import Any

import pytest
from blobhub_server.http.outbound import message, outbound
from blobhub_server.http.outbound.allowance import EVERYTHING, Allowance
from blobhub_server.http.outbound.message import Request
from blobhub_server.http.outbound.outbound import Outbound
from certificates import Authority
from waiting import until
from web import Answer, Web, moved, said, web

TEXT = b"the quick brown fox " * 1000


async def asked(
    url: str, allowance: Allowance = EVERYTHING, outbound: Outbound | None = None, **fields: Any
) -> tuple[int, bytes]:
    """The status and the body of an answer."""
    request = Request(**{"method": "GET", "url": url, "timeout_seconds": 30, "max_bytes": 1 << 20} | fields)
    async with (outbound or Outbound(allowance)).ask(request) as answer:
        return answer.status, await answer.read()


def of(server: Web) -> Allowance:
    return Allowance.parse([f"127.0.0.1:{server.port}"])


async def test_a_request_goes_out_as_it_is_and_the_answer_comes_back() -> None:
    async with web() as server:
        headers, body = [("X-One", "1"), ("Content-Type", "a/b")], b"\x00body"
        assert await asked(f"{server.url}/a?b=c", method="PUT", headers=headers, body=body) == (200, b"hello")
        (got,) = server.asked
        assert (got.method, got.path, got.body) == ("PUT", "/a?b=c", body)
        assert got.headers["host"] == f"127.0.0.1:{server.port}"
        assert (got.headers["x-one"], got.headers["content-type"], got.headers["user-agent"]) == ("1", "a/b", "blobhub")


async def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async with web() as proxy, web() as server:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        assert await asked(server.url) == (200, b"hello")
        assert proxy.connections == 0


@pytest.mark.parametrize(
    ("encoding", "data"),
    [("gzip", gzip.compress(TEXT)), ("deflate", zlib.compress(TEXT)), ("", TEXT), ("identity", TEXT)],
)
async def test_bodies_are_decompressed(encoding: str, data: bytes) -> None:
    async with web(lambda _: said(data, content_encoding=encoding)) as server:
        assert await asked(server.url) == (200, TEXT)


BOMB = gzip.compress(bytes(4 << 20))
BAD: list[tuple[str, Answer, type[message.OutboundError]]] = [
    ("longer than it may be", said(bytes(1001)), message.TooLarge),
    ("endless", Answer(pieces=[bytes(600)] * 3, hang=True), message.TooLarge),
    ("a bomb", said(BOMB[:1000], content_encoding="gzip"), message.TooLarge),
    ("gzip that is cut off", said(gzip.compress(b"x" * 99)[:-9], content_encoding="gzip"), message.BadResponse),
    ("gzip that is none", said(b"not gzip", content_encoding="gzip"), message.BadResponse),
    ("another encoding", said(b"x", content_encoding="br"), message.BadResponse),
    ("encoded twice", said(b"x", content_encoding="gzip, gzip"), message.BadResponse),
    ("shorter than it says", Answer(pieces=[b"x"], length=10), message.Unreachable),
    ("nothing", Answer(raw=b""), message.Unreachable),
    ("no HTTP", Answer(raw=b"220 smtp.example ESMTP\r\n"), message.Unreachable),
    ("endless headers", Answer(raw=b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 100_000, hang=True), message.Unreachable),
    ("a header without end", Answer(raw=b"HTTP/1.1 200 OK\r\na: " + b"b" * 500_000, hang=True), message.Unreachable),
    ("chunks that are none", Answer(headers=[("transfer-encoding", "chunked")], pieces=[b"zz\r\n"]), message.Unreachable),
]


@pytest.mark.parametrize(("answer", "error"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
async def test_an_answer_that_is_broken_or_too_large_is_an_error(answer: Answer, error: type[message.OutboundError]) -> None:
    async with web(lambda _: answer) as server:
        with pytest.raises(error):
            await asked(server.url, max_bytes=1000)


@pytest.mark.parametrize("answer", [Answer(raw=b"", hang=True), Answer(pieces=[b"x"], length=9, hang=True)])
async def test_the_time_is_for_all_of_the_answer(answer: Answer) -> None:
    async with web(lambda _: answer) as server:
        with pytest.raises(message.OutboundTimeout):
            await asked(server.url, timeout_seconds=0.1)


# Redirects


def hops(*locations: str, status: int = 302) -> dict[str, Answer]:
    """Answers by path: `/0` redirects to the first location, `/1` to the second, and so on."""
    return {f"/{number}": moved(location, status) for number, location in enumerate(locations)}


async def test_redirects_are_followed_as_far_as_they_may() -> None:
    answers = hops("/1", "2?x", "//127.0.0.1:{port}/3")
    async with web() as server:
        answers = {path: moved(dict(a.headers)["location"].format(port=server.port)) for path, a in answers.items()}
        server.respond = lambda got: answers.get(got.path, said(got.path))
        assert await asked(f"{server.url}/0", max_redirects=3, allowance=of(server)) == (200, b"/2?x")
        assert (await asked(f"{server.url}/0", max_redirects=0))[0] == 302
        server.respond = lambda got: moved("/again")
        with pytest.raises(message.TooManyRedirects):
            await asked(server.url, max_redirects=3)
        assert len(server.asked) == 3 + 1 + 4


@pytest.mark.parametrize(
    ("status", "method", "then"),
    [
        (301, "POST", "GET"),
        (302, "POST", "GET"),
        (303, "PUT", "GET"),
        (302, "PUT", "PUT"),
        (307, "POST", "POST"),
        (308, "DELETE", "DELETE"),
    ],
)
async def test_a_redirect_keeps_the_method_where_its_status_says_so(status: int, method: str, then: str) -> None:
    async with web() as server:
        server.respond = lambda got: moved("/b", status) if got.path == "/a" else said("")
        await asked(f"{server.url}/a", method=method, body=b"body", headers=[("content-type", "a/b")], max_redirects=1)
        last = server.asked[-1]
        assert last.method == then
        assert (last.body, last.headers.get("content-type")) == ((b"body", "a/b") if method == then else (b"", None))


async def test_what_may_be_secret_does_not_go_on_to_another_origin() -> None:
    headers = [("Authorization", "a"), ("cookie", "c"), ("X-Token", "t"), ("Accept", "x/y"), ("Idempotency-Key", "k")]
    async with web() as first, web() as second:
        first.respond = lambda got: moved(f"{second.url}/b" if got.path == "/elsewhere" else "/elsewhere")
        await asked(f"{first.url}/here", headers=headers, secret_headers=[("x-secret", "s")], max_redirects=2)
        assert all(got.headers["x-secret"] == "s" and got.headers["authorization"] == "a" for got in first.asked)
        (got,) = second.asked
        assert got.headers["accept"] == "x/y"
        assert got.headers["idempotency-key"] == "k"
        assert not {"authorization", "cookie", "x-token", "x-secret"} & got.headers.keys()


async def test_a_secret_goes_to_its_hosts_alone_and_to_public_ones_by_https_alone() -> None:
    secret = [("authorization", "s")]
    async with web() as server:
        for hosts in ([], ["127.0.0.1"], ["other", f"127.0.0.1:{server.port}"]):
            assert (await asked(server.url, secret_headers=secret, secret_hosts=hosts))[0] == 200
        for hosts in (["other"], ["127.0.0.1:1"], ["127.0.0.10"]):
            with pytest.raises(message.RefusedTarget, match="is not for"):
                await asked(server.url, secret_headers=secret, secret_hosts=hosts)
        with pytest.raises(message.RefusedTarget, match="https alone"):
            await asked("http://1.1.1.1/", Allowance(), secret_headers=secret)
        assert server.connections == 3


# TLS


async def test_the_certificate_is_verified_for_the_name_and_not_for_the_address(tmp_path: Path) -> None:
    authority = Authority("ours")
    certificate, key = authority.issue("x").write(tmp_path, "x")
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(certificate, key)
    names = list[str | None]()
    serving.sni_callback = lambda _, name, __: names.append(name)
    trusting = ssl.create_default_context(cadata=authority.certificate.decode())

    async def resolver(host: str, port: int) -> list[str]:
        return ["127.0.0.1"]

    async with web(tls=serving) as server:
        ours = Outbound(EVERYTHING, tls=trusting, resolver=resolver)
        assert await asked(server.url, outbound=ours) == (200, b"hello")
        with pytest.raises(message.Unreachable, match="presents no certificate for its name"):
            await asked(f"https://named.example:{server.port}/", outbound=ours)
        with pytest.raises(message.Unreachable):  # The machine does not know the authority.
            await asked(server.url)
        assert names == [None, "named.example", None]
        assert len(server.asked) == 1


async def test_encrypted_requests_are_not_redirected_into_the_clear(tmp_path: Path) -> None:
    authority = Authority("ours")
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(*authority.issue("x").write(tmp_path, "x"))
    trusting = ssl.create_default_context(cadata=authority.certificate.decode())
    async with web() as clear, web(lambda _: moved(clear.url), tls=serving) as server:
        with pytest.raises(message.RefusedTarget, match="from https to http"):
            await asked(server.url, outbound=Outbound(EVERYTHING, tls=trusting), max_redirects=3)
        assert clear.connections == 0


async def test_the_next_address_is_tried_where_one_accepts_no_connection() -> None:
    async def resolver(host: str, port: int) -> list[str]:
        return ["127.0.0.2", "127.0.0.1"]

    async with web() as server:
        ours = Outbound(EVERYTHING, resolver=resolver)
        assert await asked(f"http://two.example:{server.port}/", outbound=ours) == (200, b"hello")
        assert server.asked[0].headers["host"] == f"two.example:{server.port}"


async def test_whoever_asks_what_never_answers_holds_up_their_own_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbound, "AT_ONCE_OF_ONE", 2)
    ours, one = Outbound(EVERYTHING), ("one", "x")
    async with web() as silent, web() as server, asyncio.TaskGroup() as group:
        silent.respond = lambda got: Answer(raw=b"", hang=True)
        stuck = [group.create_task(asked(silent.url, outbound=ours, party=one)) for _ in range(3)]
        await until(lambda: len(silent.asked) == 2)
        assert await asked(server.url, outbound=ours, party=("other", "y")) == (200, b"hello")
        assert len(silent.asked) == 2
        for task in stuck:
            task.cancel()


async def test_a_name_is_looked_up_by_the_machine() -> None:
    async with web() as server:
        allowance = Allowance.parse([f"localhost:{server.port}"])
        assert await asked(f"http://localhost:{server.port}/", allowance) == (200, b"hello")
        with pytest.raises(message.Unreachable, match="has no address"):
            await asked("http://nothing.invalid/", allowance)
