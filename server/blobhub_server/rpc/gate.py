"""What the pipeline needs of whoever admits calls."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from google.protobuf.message import Message

from blobhub_server.errors import BlobHubError
from blobhub_server.rpc import guard
from blobhub_server.rpc.room import Sender

Metadata = Sequence[tuple[str, str | bytes]] | None


class Admission(guard.Admission, Protocol):
    """The admission of one call."""

    @property
    def changes(self) -> bool:
        """Whether the call makes a change, as its method says. Its answer tells of it, so it is sent in any case."""

    async def identify(self) -> None:
        """Find the caller. Raises Unauthenticated and the like."""

    async def answer(self, make: Callable[[Any], Awaitable[bytes]]) -> bytes:
        """Admit a call and return what `make` answers, or the answer remembered for the same request.

        Raises InvalidReference, Unauthenticated, PermissionDenied and the like, and what `make` raises.
        """

    async def admit(self) -> Any:
        """Admit a call that is answered with a stream; return it. Raises the same."""

    def sender(self, peer: str) -> Sender:
        """Who made the call: its caller, or, when nothing identifies one, whoever is at the peer's address."""

    async def record_failure(self, error: BlobHubError, *, handled: bool) -> None:
        """Record a call that ends with an error; `handled` says that its handler had begun."""


class Gate(Protocol):
    """Authenticates callers, authorizes calls, and records refusals."""

    def screen(self, metadata: Metadata) -> None:
        """Check the form of a call's key, before anything of the call is read. Raises Unauthenticated."""

    def known_sender(self, metadata: Metadata) -> Sender | None:
        """Who sends a call, if somebody who was identified a moment ago does."""

    async def sender(self, metadata: Metadata, peer: str) -> Sender:
        """Who sends a call that nothing has been read of."""

    def arrive(self, method: str, request: Message, metadata: Metadata) -> Admission:
        """The admission of a call that has just arrived. Its first request is decoded, and nothing is checked yet."""
