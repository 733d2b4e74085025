"""A hostile caller: a key that may write to one organization, and what it can do with it."""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import acme
import flows
import grpc
from blobhub.v1 import execution_pb2, session_pb2
from blobhub_server.blobtypes.conformance import reason_of
from calling import METHODS, request_of
from google.protobuf.message import Message
from served import WORKFLOW, Api, connected

from hostile import texts

FAULTS = ("INTERNAL", "UNKNOWN")
"""What a server never answers, whatever it is asked."""

CALL_SECONDS = 60.0
"""How long a hostile caller waits for one answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One hostile input. `content` is what is sent or done, in short or whole: no two members of a kind have the same."""

    kind: str
    name: str
    content: Callable[[], str | bytes]
    attack: Callable[[Attacker], Awaitable[object]]

    def __str__(self) -> str:
        return f"{self.kind}: {self.name}"

    def digest(self) -> str:
        """The same as that of a member of this kind with the same content, and of no other."""
        made = self.content()
        data = made.encode("utf-8", "surrogatepass") if isinstance(made, str) else made
        return f"{self.kind} {hashlib.sha256(data).hexdigest()}"


class Attacker:
    """Makes hostile calls, and notes what comes of them: codes and reasons, of calls and of executions."""

    def __init__(self, api: Api, anonymous: Api, *, address: str, organization: str) -> None:
        self.api = api
        self.anonymous = anonymous
        self.address = address
        self.organization = organization
        self.blob = f"{organization}/pipeline"
        self.draft = f"{self.blob}@draft"
        self.session = ""
        self.outcomes: Counter[str] = Counter()
        self._made = 0

    @property
    def faults(self) -> list[str]:
        """Outcomes that a server never gives."""
        return [outcome for outcome in self.outcomes if any(fault in outcome for fault in FAULTS)]

    async def settle(self) -> None:
        """Make a blob, a session in its draft, and the session objects that hostile expressions work on."""
        await acme.blob(self.api, self.blob)
        await self.new_session()

    async def new_session(self) -> None:
        """Go on in a session of one's own that has what hostile expressions work on."""
        request = session_pb2.CreateSessionRequest(revision=self.draft)
        self.session = (await self.api.sessions.CreateSession(request)).session.id
        for alias, text in texts.OBJECTS.items():
            await self.ask("PutSessionObject", session=self.session, alias=alias, value_json=text)

    async def ask(self, name: str, /, **fields: Any) -> bytes | None:
        """Make a call; the bytes of its answer, or of the last message of it. None when it was refused."""
        try:
            request = request_of(METHODS[name], **fields)
        except UnicodeEncodeError:  # what protobuf does not let out, others would
            self.outcomes[f"{name} cannot be sent"] += 1
            return None
        return await self.send(name, request)

    async def send(self, name: str, request: Message | bytes, **options: Any) -> bytes | None:
        """The same, of a request that may be no message at all."""
        data = request if isinstance(request, bytes) else request.SerializeToString()
        method, last = METHODS[name], None
        options = {"timeout": CALL_SECONDS} | options
        try:
            if method.server_streaming:
                async for answer in self.api.channel.unary_stream(method.path)(data, **options):
                    last = answer
            else:
                last = await self.api.channel.unary_unary(method.path)(data, **options)
        except grpc.aio.AioRpcError as error:
            self.outcomes[f"{name} {error.code().name} {reason_of(error) or (error.details() or '')[:60]}"] += 1
            return None
        self.outcomes[f"{name} OK"] += 1
        return last

    async def new_blob(self) -> str:
        """A blob of its own for a member that commits."""
        self._made += 1
        alias = f"blob-{self._made}"
        await self.ask("CreateBlob", organization=self.organization, alias=alias, type=WORKFLOW)
        return f"{self.organization}/{alias}"

    async def put(self, document: str) -> bool:
        """Put a definition; whether it was taken."""
        return bool(await self.ask("PutDefinition", revision=self.draft, alias="hostile", document=document))

    async def run(self, document: str, *, step_limit: int = 0, seconds: int = 20, **inputs: str) -> None:
        """Put a definition and run it to its end; `inputs` are JSON texts."""
        if not await self.put(document):
            return
        given = [execution_pb2.ExecutionInput(alias=alias, value_json=text) for alias, text in inputs.items()]
        spec = execution_pb2.ExecutionSpec(definition="hostile", input_data=given, step_limit=step_limit)
        spec.timeout.seconds = seconds
        last = await self.ask("RunExecution", session=self.session, spec=spec)
        if last:
            execution = execution_pb2.RunExecutionResponse.FromString(last).execution
            self.outcomes[f"execution {execution.failure.reason or execution.state}"] += 1

    async def script(self, source: str) -> None:
        """Run a script."""
        await self.run(flows.code(source))


@asynccontextmanager
async def attacking(address: str, admin: Api, organization: str) -> AsyncIterator[Attacker]:
    """A hostile caller with an organization of its own."""
    await acme.organization(admin, organization)
    key = (await acme.key(admin, organization, acme.WRITE)).key
    async with connected(address, key) as api, connected(address, None) as anonymous:
        attacker = Attacker(api, anonymous, address=address, organization=organization)
        await attacker.settle()
        yield attacker


async def together(*attacks: Awaitable[object]) -> None:
    """Make several attacks at once."""
    await asyncio.gather(*attacks)
