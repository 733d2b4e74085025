"""Ends a client's connection. gRPC has no call for that, but its sockets are this process's own."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import IPv6Address, ip_address
from urllib.parse import unquote

Endpoint = tuple[str, int]


def end_connection(peer: str) -> bool:
    """Shut down the connection of a peer, as gRPC names it (`ipv4:127.0.0.1:50000`); whether there is one.

    gRPC then cancels its calls and lets go of what it holds for them. All open files are gone over, so a thread calls this.
    """
    wanted = _parse(peer)
    listening: set[int] = set()
    found: list[tuple[int, socket.socket]] = []
    try:
        for opened in _sockets():
            keep = False
            with suppress(OSError):
                port = opened.getsockname()[1]
                if opened.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                    listening.add(port)
                elif wanted is not None and _endpoint(opened.getpeername()) == wanted:
                    found.append((port, opened))
                    keep = True
            if not keep:
                opened.close()
        # A connection that we have made ourselves, to a database for example, may lead to an address of a client's choosing.
        ended = [opened for port, opened in found if port in listening]
        for opened in ended:
            with suppress(OSError):
                opened.shutdown(socket.SHUT_RDWR)
        return bool(ended)
    finally:
        for _, opened in found:
            opened.close()


def _sockets() -> Iterator[socket.socket]:
    """A duplicate of every TCP socket that this process has open. What is shut down is so for all duplicates."""
    for name in os.listdir("/dev/fd"):
        try:
            copy = os.dup(int(name))
        except OSError:  # It was that of the listing.
            continue
        try:
            opened = socket.socket(fileno=copy)
        except OSError:
            os.close(copy)
            continue
        if opened.family in (socket.AF_INET, socket.AF_INET6):
            yield opened
        else:
            opened.close()


def _parse(peer: str) -> Endpoint | None:
    host, _, port = unquote(peer).partition(":")[2].rpartition(":")
    try:
        return _endpoint((host.strip("[]"), int(port)))
    except ValueError:
        return None


def _endpoint(name: tuple[str, int] | tuple[str, int, int, int]) -> Endpoint:
    """An address and a port. Where gRPC listens for both, an address of IPv4 has the form of one of IPv6."""
    address = ip_address(name[0])
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return str(mapped or address), name[1]
