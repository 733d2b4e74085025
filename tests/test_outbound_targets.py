"""Where requests may not go: none reaches what is not public, however it is asked for, unless the operator allows it."""

from __future__ import annotations

import ipaddress
import random
from collections.abc import Sequence

import anyio
import pytest
from blobhub_server.http.outbound import address
from blobhub_server.http.outbound.allowance import Allowance
from blobhub_server.http.outbound.message import InvalidUrl, OutboundError, RefusedTarget, Request
from blobhub_server.http.outbound.outbound import Outbound
from scale import scaled
from trapping import FAR_V4, NEAR_V4, NEAR_V6, PUBLIC, Try, literals, make_try
from web import Web, moved, said, web

TRIES = scaled(2000, least=200)


class Resolver:
    """Answers questions about names one after the other, the last answer again and again; counts them."""

    def __init__(self, answers: Sequence[Sequence[str]]) -> None:
        self.answers, self.asked = [*answers], 0

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked += 1
        if not self.answers:
            raise OSError("no such name")
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


def request(url: str) -> Request:
    return Request(method="GET", url=url, timeout_seconds=30, max_bytes=1000, max_redirects=5)


@pytest.fixture
def connected(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """What is connected to. Nothing beyond this machine is."""
    connect, seen = anyio.connect_tcp, list[tuple[str, int]]()

    async def watched(remote_host: str, remote_port: int, **options: object) -> object:
        seen.append((remote_host, remote_port))
        if not ipaddress.ip_address(remote_host).is_loopback:
            raise OSError("not in tests")
        return await connect(remote_host, remote_port, **options)

    monkeypatch.setattr(anyio, "connect_tcp", watched)
    return seen


async def send(each: Try, front: Web, allowance: Allowance) -> str:
    """Make a try: what came of it, in a word."""
    front.respond = lambda _: moved(each.redirect, each.status)
    resolver = Resolver(each.answers)
    try:
        async with Outbound(allowance, resolver=resolver).ask(request(each.url)) as answer:
            return f"answered {answer.status}"
    except OutboundError as error:
        return type(error).__name__
    finally:
        # A name that were resolved again for the connection could lead elsewhere by then.
        assert resolver.asked <= 1, each


async def test_no_try_reaches_what_is_not_public(
    connected: list[tuple[str, int]], capsys: pytest.CaptureFixture[str]
) -> None:
    die, seen, hows = random.Random(13), dict[str, int](), set[str]()
    async with web() as front, web() as trap:
        allowance = Allowance.parse([f"127.0.0.1:{front.port}"])
        for _ in range(TRIES):
            each = make_try(front.port, trap.port, die)
            result = await send(each, front, allowance)
            seen[result] = seen.get(result, 0) + 1
            hows.add(each.how)
            assert trap.connections == 0, each
            assert not result.startswith("answered"), (each, result)
        reached = {(host, port) for host, port in connected if port != front.port}
        assert {host for host, _ in reached} <= {*PUBLIC}
    assert len(hows) == 6
    assert {"RefusedTarget", "InvalidUrl", "Unreachable"} <= seen.keys()
    with capsys.disabled():
        print(f"\n{TRIES} tries reached the trap {trap.connections} times: {seen}")


async def test_the_trap_is_reached_where_it_is_allowed() -> None:
    async with web() as trap:
        ways: list[tuple[str, str, list[str]]] = [
            (f"http://127.0.0.1:{trap.port}/", "127.0.0.1", []),
            (f"http://127.0.0.1:{trap.port}/", f"127.0.0.1:{trap.port}", []),
            (f"http://127.0.0.1:{trap.port}/", "127.0.0.0/8", []),
            (f"http://[::ffff:127.0.0.1]:{trap.port}/", "127.0.0.0/8", []),
            (f"http://Build.Internal.:{trap.port}/", "build.internal", ["127.0.0.1"]),
            (f"http://build.internal:{trap.port}/", f"build.internal:{trap.port}", ["127.0.0.1"]),
            (f"http://build.internal:{trap.port}/", "127.0.0.1", ["127.0.0.1"]),
        ]
        for url, allowed, answers in ways:
            outbound = Outbound(Allowance.parse([allowed]), resolver=Resolver([answers] if answers else []))
            async with outbound.ask(request(url)) as answer:
                assert answer.status == 200
        refused = [
            (f"http://127.0.0.1:{trap.port}/", "127.0.0.1:1"),
            (f"http://127.0.0.1:{trap.port}/", "127.0.0.2"),
            (f"http://127.0.0.1:{trap.port}/", "localhost"),
            (f"http://build.internal:{trap.port}/", "internal"),
            (f"http://build.internal:{trap.port}/", "build.internal:1"),
            (f"http://2130706433:{trap.port}/", "127.0.0.0/8"),
        ]
        for url, allowed in refused:
            outbound = Outbound(Allowance.parse([allowed]), resolver=Resolver([["127.0.0.1"]]))
            with pytest.raises(RefusedTarget):
                async with outbound.ask(request(url)):
                    pass
        assert trap.connections == len(ways)


@pytest.mark.parametrize(
    "text", ["", "10.0.0.0/33", "a b", "http://x", "x:0", "x:70000", "*", "127.1", "0x7f000001", "::1:80:x"]
)
def test_an_allowance_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        Allowance.parse([text])


@pytest.mark.parametrize("text", ["[::1]:80", "::1", "fd00::/8", "10.0.0.0/8", "10.0.0.1:80", "a_b.internal:8080", "HOST"])
def test_hosts_addresses_and_networks_are_allowances(text: str) -> None:
    assert Allowance.parse([text]).entries


def test_only_addresses_that_everybody_can_reach_are_public() -> None:
    for text in PUBLIC:
        assert address.is_public(ipaddress.ip_address(text))
    assert address.is_public(ipaddress.ip_address("::ffff:1.1.1.1"))
    assert address.is_public(ipaddress.ip_address("64:ff9b::1.1.1.1"))
    for text in (*NEAR_V4, *FAR_V4, *NEAR_V6, "168.63.129.16", "2002:101:101::1", "2606:4700::5efe:a00:1"):
        assert not address.is_public(ipaddress.ip_address(text)), text


def test_what_python_knows_as_special_is_not_public() -> None:
    die = random.Random(1)
    for _ in range(scaled(100_000, least=2_000)):
        v4 = ipaddress.IPv4Address(die.getrandbits(32))
        v6 = ipaddress.IPv6Address(die.getrandbits(128) >> die.choice([0, 0, 32, 64, 96]))
        for each in (v4, v6, ipaddress.IPv6Address(f"2000::{v4}")):
            assert not address.is_public(each) or (each.is_global and not each.is_multicast), each


@pytest.mark.parametrize("text", NEAR_V4 + FAR_V4)
async def test_every_way_to_write_an_address_is_that_address_or_refused(text: str) -> None:
    die = random.Random(text)
    for _ in range(60):
        with pytest.raises((RefusedTarget, InvalidUrl)):
            async with Outbound(Allowance(), resolver=Resolver([])).ask(request(f"http://{literals(text, die)}/")):
                pass


async def test_an_error_says_nothing_of_the_url_but_its_host(connected: list[tuple[str, int]]) -> None:
    async with web(lambda _: said("")) as front:
        for url in (
            f"http://127.0.0.1:{front.port}/sesame?sesame",
            "http://1.1.1.1/sesame?sesame",
            "http://sesame@1.1.1.1/",
        ):
            with pytest.raises(OutboundError) as raised:
                async with Outbound(Allowance(), resolver=Resolver([])).ask(request(url)):
                    pass
            assert "sesame" not in str(raised.value)
