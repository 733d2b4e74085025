"""Ways to have a request go where it may not: URLs, names that lead elsewhere, and redirects, by the throw of a die."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address

PUBLIC = ("1.1.1.1", "8.8.8.8", "2606:4700:4700::1111")
"""Addresses that a name may lead to. Nothing connects to them in tests."""
NEAR_V4 = ("127.0.0.1", "127.0.0.1", "127.0.0.1", "127.8.9.10", "0.0.0.0", "10.0.0.1", "172.16.3.4", "192.168.1.1")
FAR_V4 = ("169.254.169.254", "100.64.0.1", "100.100.100.200", "224.0.0.1", "240.0.0.1", "255.255.255.255", "192.0.0.192")
NEAR_V6 = (
    "::1",
    "::",
    "fe80::1",
    "fc00::1",
    "fd00:ec2::254",
    "ff02::1",
    "fec0::1",
    "100::1",
    "2001:db8::1",
    "64:ff9b:1::a00:1",
)


@dataclass
class Try:
    """A URL to ask, and what the test's resolver says to each question about a name, the last of it again and again.

    `redirect` is where the front redirects to, where the URL is the front's; `status` is the redirect's.
    """

    url: str
    answers: list[Sequence[str]] = field(default_factory=list)
    redirect: str = ""
    status: int = 302
    how: str = ""


def literals(address: str, die: random.Random) -> str:
    """A host that some reader of URLs takes for an IPv4 address."""
    packed, number = IPv4Address(address).packed, int(IPv4Address(address))
    a, b, c, d = packed
    v6 = f"{packed[:2].hex()}:{packed[2:].hex()}"
    return die.choice(
        [
            address,
            f"{address}.",
            str(number),
            str(number + (1 << 32)),
            hex(number),
            hex(number).upper(),
            f"0{number:o}",
            f"{a}.{(b << 16) + (c << 8) + d}",
            f"{a}.{b}.{(c << 8) + d}",
            f"{a:#x}.{b:#x}.{c:#x}.{d:#x}",
            f"0{a:o}.0{b:o}.0{c:o}.0{d:o}",
            f"{a:#x}.{b}.0{(c << 8) + d:o}",
            f"{a:03}.{b:03}.{c:03}.{d:03}",
            f"{a:010o}.{b}.{c}.{d}",
            f"[::ffff:{address}]",
            f"[::ffff:{v6}]",
            f"[0:0:0:0:0:ffff:{v6}]",
            f"[::{address}]",
            f"[::ffff:0:{v6}]",
            f"[64:ff9b::{v6}]",
            f"[2002:{v6}::1]",
            f"[2001:0:{v6}::{v6}]",
            f"[2606:4700::5efe:{v6}]",
            "[fe80::1%25lo]",
            "[::1%25lo]",
            address.replace(".", "。"),
            address.replace(".", "%2e"),
            "".join(f"%{ord(char):02x}" for char in address),
            address.translate({ord("0") + n: "０１２３４５６７８９"[n] for n in range(10)}),
            address.translate({ord("0") + n: "⓪①②③④⑤⑥⑦⑧⑨"[n] for n in range(10)}),
        ]
    )


def urls(port: int, die: random.Random) -> str:
    """A URL that leads, or may seem to lead, to an address that is not public."""
    host = literals(die.choice(NEAR_V4 + FAR_V4), die) if die.random() < 0.8 else f"[{die.choice(NEAR_V6)}]"
    at = f"{host}:{port}"
    return die.choice(
        [
            f"http://{at}/",
            f"http://{at}/",
            f"http://{at}/",
            f"HTTP://{at.upper()}/",
            f"https://{at}/",
            f"http://one.one.one.one@{at}/",
            f"http://1.1.1.1:80@{at}/",
            f"http://{at}#@1.1.1.1/",
            f"http://{at}?@1.1.1.1/",
            f"http://{at}\\@1.1.1.1/",
            f"http://1.1.1.1\\@{at}/",
            f"http://1.1.1.1 @{at}/",
            f"http://\t{at}/",
            f"http:\n//{at}/",
            f"http:/{at}/",
            f"http:///{at}/",
            f"//{at}/",
            f" http://{at}/",
            f"http://{host}:0{port}/",
            f"http://{host}:{port + 65_536}/",
            f"gopher://{at}/_GET",
            f"file://{at}/etc/passwd",
            f"http://{at}\r\nhost: 1.1.1.1\r\n\r\n",
        ]
    )


def forbidden(die: random.Random) -> str:
    """An address that is not public, as a resolver gives it."""
    address = die.choice(NEAR_V4 + FAR_V4)
    v6 = IPv6Address(f"::ffff:{address}")
    return die.choice([address, address, str(v6), f"64:ff9b::{address}", f"::{address}", *NEAR_V6])


def make_try(front: int, trap: int, die: random.Random) -> Try:
    """A try of any kind. The front may be asked; whatever reaches the trap is an escape."""
    name = f"http://{die.choice(['rebind.example', 'localhost', 'a_b.internal', 'metadata'])}:{trap}/"
    kinds = ("a URL", "a name", "rebinding", "one of several", "a redirect", "a redirect to a name")
    how = die.choice(kinds)
    bad = [forbidden(die)]
    match how:
        case "a URL":
            made = Try(url=urls(trap, die))
        case "a name":
            made = Try(url=name, answers=[bad])
        case "rebinding":
            made = Try(url=name, answers=[[die.choice(PUBLIC)], bad])
        case "one of several":
            several = [*die.sample(PUBLIC, 2), *bad]
            die.shuffle(several)
            made = Try(url=name, answers=[several])
        case "a redirect":
            to = die.choice([urls(trap, die), f"//127.0.0.1:{trap}/", f"/\\127.0.0.1:{trap}/", f"http:127.0.0.1:{trap}"])
            made = Try(url=f"http://127.0.0.1:{front}/", redirect=to)
        case _:
            made = Try(
                url=f"http://127.0.0.1:{front}/", redirect=name, answers=[[die.choice(PUBLIC)], bad][die.randrange(2) :]
            )
    made.how, made.status = how, die.choice([301, 302, 303, 307, 308])
    return made
