"""Where requests may go beside public addresses, because the operator says so."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network

from blobhub_server.http.outbound.address import Address, is_numeric, plain

_NAME = re.compile(r"[a-z0-9_](?:[a-z0-9_.-]{0,252}[a-z0-9_])?")
_WITH_PORT = re.compile(r"(?P<host>\[[^\]]+\]|[^:\[\]]+):(?P<port>[0-9]{1,5})")
MAX_PORT = 65_535


@dataclass(frozen=True, slots=True)
class _Entry:
    """A host or a network, on one port or all."""

    host: str | None
    network: IPv4Network | IPv6Network | None
    port: int | None


@dataclass(frozen=True, slots=True)
class Allowance:
    """Targets that are allowed though they are not public; `everything` allows all."""

    entries: tuple[_Entry, ...] = ()
    everything: bool = False

    @classmethod
    def parse(cls, texts: Iterable[str]) -> Allowance:
        """From hosts, addresses and networks, each but networks with or without `:port`. Raises ValueError."""
        return cls(tuple(_entry(text.strip().lower()) for text in texts))

    def names(self, host: str, port: int) -> bool:
        """Whether a host is allowed, whatever it leads to."""
        return self.everything or any(
            entry.host == host and (entry.port is None or entry.port == port) for entry in self.entries
        )

    def holds(self, address: Address, port: int) -> bool:
        """Whether an address is allowed."""
        return self.everything or any(
            entry.network is not None and plain(address) in entry.network and (entry.port is None or entry.port == port)
            for entry in self.entries
        )


EVERYTHING = Allowance(everything=True)


def _entry(text: str) -> _Entry:
    found = _WITH_PORT.fullmatch(text)
    host, port = (found["host"], int(found["port"])) if found else (text, None)
    if port is not None and not 0 < port <= MAX_PORT:
        raise ValueError(f"{text[:80]!r} has no port from 1 to {MAX_PORT}")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    try:
        network = ipaddress.ip_network(bare)
    except ValueError:
        network = None
    if network is not None:
        return _Entry(host=None, network=network, port=port)
    if _NAME.fullmatch(host) is None or is_numeric(host):
        raise ValueError(f"{text[:80]!r} is no host, address or network, such as build.internal:8080 or 10.1.0.0/16")
    return _Entry(host=host, network=None, port=port)
