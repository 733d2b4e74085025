"""A connected command: the stubs, calls that are safe to repeat, and where the answers go."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc
from blobhub_client import Client, Policy, Unreachable, connect, page
from google.protobuf.message import Message

from blobhub_cli.inputs import read_bytes
from blobhub_cli.output import Output
from blobhub_cli.profiles import Profile

CONNECT_SECONDS = 10.0
POLICY = Policy(call_seconds=60)
RECONNECT_SECONDS = 120.0
"""How long a watch that was cut off tries to go on."""
MAX_PAGE = 1000

Answer = TypeVar("Answer")


@dataclass
class Hub:
    """What a command works with."""

    client: Client
    out: Output
    profile: Profile
    farewell: str = ""
    """What is said when the command is interrupted, about what goes on without it."""

    async def call(self, method: Callable[..., Awaitable[Answer]], request: Message) -> Answer:
        """Make a call, and again while the server cannot take it, as the client does: nothing happens twice."""
        return await method(request)

    def pages(self, method: Callable[..., Any], request: Any, limit: int) -> AsyncIterator[Any]:
        """The items of a list, page after page; one more than `limit`, which tells that there are more."""
        request.page_size = min(limit + 1, MAX_PAGE) if limit else MAX_PAGE

        async def ask(asked: Any) -> Any:
            return await self.call(method, asked)

        return page(ask, request)


@asynccontextmanager
async def open_hub(profile: Profile, out: Output) -> AsyncIterator[Hub]:
    """Connect to a server. Raises Unreachable at once where nobody listens, and CommandError for a file that is none."""
    credentials = None
    if profile.is_secure:
        authority = read_bytes(profile.ca_file) if profile.ca_file else None
        credentials = grpc.ssl_channel_credentials(authority)
    async with connect(
        profile.host, profile.key or None, credentials=credentials, reconnect_seconds=RECONNECT_SECONDS, policy=POLICY
    ) as client:
        await _reach(client, profile)
        yield Hub(client=client, out=out, profile=profile)


async def _reach(client: Client, profile: Profile) -> None:
    """Wait until a connection is there, or cannot be made: a person does not wait for a server that is not started."""
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            while True:
                state = client.channel.get_state(try_to_connect=True)
                if state is grpc.ChannelConnectivity.READY:
                    return
                if state in (grpc.ChannelConnectivity.TRANSIENT_FAILURE, grpc.ChannelConnectivity.SHUTDOWN):
                    break
                await client.channel.wait_for_state_change(state)
    except TimeoutError:
        pass
    hint = (
        "does it speak TLS, with a certificate that is trusted?" if profile.is_secure else "does it ask for TLS (https://)?"
    )
    raise Unreachable(f"no server answers at {profile.host}; is one running there, and {hint}")
