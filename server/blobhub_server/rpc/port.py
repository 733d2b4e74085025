"""What a port of gRPC takes in and gives out: how large a message may be there, and how much of messages is held at once.

A limit on messages is that of a server object of gRPC, so larger messages have a port of their own. gRPC takes in a whole
message for every call that asks for one, and says its size only then: so a port has as many places for messages that are
being received as its largest messages fit into a budget.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from blobhub_server.rpc.room import RoomSize

MIB = 1 << 20
MAX_MESSAGE_BYTES = 4 * MIB
"""Of the port that everything is served on."""
KNOWN_BYTES, UNKNOWN_BYTES, STREAM_BYTES = 128 * MIB, 64 * MIB, 128 * MIB
"""What messages that are being received on a port for large ones may take: those of known callers, those of whom nothing
identifies, and those of streams of requests."""
UNDER_WAY_BYTES = 256 * MIB
"""What the requests have together that such a port has handed to handlers."""
UNREAD_BYTES = 192 * MIB
"""How much of its answers may wait for their readers."""
HEALTH = "/grpc.health.v1.Health/Check"


@dataclass(frozen=True, slots=True, kw_only=True)
class PortBounds:
    """The bounds of a port. Where there is None, that is what the modules say whose bound it is."""

    max_message_bytes: int = MAX_MESSAGE_BYTES
    room: RoomSize = field(default_factory=RoomSize)
    max_under_way_bytes: int | None = None
    """Of the requests of all senders; those of one have a bound in any case."""
    max_unread_bytes_per_sender: int | None = None
    max_unread_bytes: int | None = None

    @classmethod
    def for_large_messages(cls, max_message_bytes: int) -> PortBounds:
        """The bounds of a port for messages of so many bytes."""

        def places(budget: int) -> int:
            return max(1, budget // max_message_bytes)

        room = RoomSize(
            at_once=0,
            known=places(KNOWN_BYTES),
            unknown=places(UNKNOWN_BYTES),
            streams=places(STREAM_BYTES),
            apart={HEALTH: 2},
        )
        return cls(
            max_message_bytes=max_message_bytes,
            room=room,
            max_under_way_bytes=UNDER_WAY_BYTES,
            max_unread_bytes_per_sender=max(16 * MIB, max_message_bytes),
            max_unread_bytes=UNREAD_BYTES,
        )


ORDINARY = PortBounds()
