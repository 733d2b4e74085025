"""Which addresses are public: everybody's machines, and not this one, its network or what its provider keeps beside it."""

from __future__ import annotations

import ipaddress
import re
from ipaddress import IPv4Address, IPv6Address

Address = IPv4Address | IPv6Address

# IANA's registry of special-purpose IPv4 addresses, with multicast. Python's `is_global` depends on its version. The last is
# where Azure answers every machine of its own: public by its number alone.
_SPECIAL_V4 = [
    ipaddress.IPv4Network(text)
    for text in [
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/3",
        "168.63.129.16/32",
    ]
]
_UNICAST_V6 = ipaddress.IPv6Network("2000::/3")
"""All that has been handed out to be reached from everywhere."""
# Teredo and other protocols (2001::/23), documentation, and 6to4, whose relays are gone (RFC 7526).
_SPECIAL_V6 = [ipaddress.IPv6Network(text) for text in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")]
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_ISATAP = re.compile(r":0[02]00:5efe:[0-9a-f]{4}:[0-9a-f]{4}\Z")
_NUMBER = re.compile(r"0x[0-9a-f]*|[0-9]+", re.IGNORECASE)


def plain(address: Address) -> Address:
    """The IPv4 address that an IPv6 address stands for on this machine (`::ffff:10.0.0.1`), else the address itself."""
    return address if isinstance(address, IPv4Address) else address.ipv4_mapped or address


def is_public(address: Address) -> bool:
    """Whether an address is public, whichever way it is written."""
    address = plain(address)
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _SPECIAL_V4)
    if address.scope_id is not None:
        return False
    if address in _NAT64:
        return is_public(_last_32_bits(address))
    if address not in _UNICAST_V6 or any(address in network for network in _SPECIAL_V6):
        return False
    return _ISATAP.search(address.exploded) is None or is_public(_last_32_bits(address))


def is_numeric(host: str) -> bool:
    """Whether a host is read as an IPv4 address by some who resolve it: `127.1`, `0x7f000001`, `017700000001`.

    The rule is that of the URL standard: what ends with a number is an address.
    """
    return _NUMBER.fullmatch(host.removesuffix(".").rpartition(".")[2]) is not None


def parse(host: str) -> Address | None:
    """The address that a host is in its usual form; None for a name."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _last_32_bits(address: IPv6Address) -> IPv4Address:
    return IPv4Address(int(address) & 0xFFFFFFFF)
