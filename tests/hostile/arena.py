"""One metered server, and hostile callers of it: who attacked when, and what the server's loop and memory say of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import flows
from meter import Callback, MeteredServer, Reading
from served import Api, connected

from hostile.attacker import Attacker, Member, attacking

MEMBER_SECONDS = 180
"""How long one member may take, other members beside it, before something is wrong."""

SETTLING_SECONDS = 1.0
"""How long after its last answer a member's doings may still be seen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attack:
    """A member that was tried: when, by `time.monotonic`, which is the server's clock too."""

    member: Member
    begin_time: float
    end_time: float

    def covers(self, callback: Callback) -> bool:
        """Whether a callback ran then."""
        return self.begin_time <= callback.end_time and callback.begin_time <= self.end_time + SETTLING_SECONDS


@dataclass(slots=True)
class Arena:
    """A server, and those who attack it."""

    server: MeteredServer
    admin: Api
    attackers: Sequence[Attacker]

    async def attack(self, members: Iterable[Member]) -> list[Attack]:
        """Have all attackers try the members, each the next one that nobody has tried."""
        left, attacks = iter(members), []

        async def attack_on(attacker: Attacker) -> None:
            for member in left:
                begin_time = time.monotonic()
                await _attack(member, attacker)
                attacks.append(Attack(member=member, begin_time=begin_time, end_time=time.monotonic()))

        async with asyncio.TaskGroup() as group:
            for attacker in self.attackers:
                group.create_task(attack_on(attacker))
        return attacks

    async def alone(self, member: Member) -> Reading:
        """Have one attacker try one member, and nobody else anything; what the meter says of it."""
        self.server.reset()
        await _attack(member, self.attackers[0])
        await asyncio.sleep(SETTLING_SECONDS / 4)
        return self.server.read()

    def faults(self) -> list[str]:
        """What was answered that a server never answers."""
        return [fault for attacker in self.attackers for fault in attacker.faults]


async def _attack(member: Member, attacker: Attacker) -> None:
    try:
        async with asyncio.timeout(MEMBER_SECONDS):
            await member.attack(attacker)
    except TimeoutError:
        raise AssertionError(f"`{member}` has not come to an end") from None


@asynccontextmanager
async def arena(data_dir: Path, *, attackers: int, log: Path, database_url: str | None = None) -> AsyncIterator[Arena]:
    """Start a server and attackers. What is done for the first time in a server is done when this returns."""
    server = MeteredServer(data_dir, database_url, log=log, code_seconds=1, log_level="info")
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(server.running())
        admin = await stack.enter_async_context(connected(server.address, server.admin_key))
        made = [
            await stack.enter_async_context(attacking(server.address, admin, f"hostile-{number}"))
            for number in range(attackers)
        ]
        await warm_up(made[0])
        server.reset()
        yield Arena(server=server, admin=admin, attackers=made)


async def warm_up(attacker: Attacker) -> None:
    """Do once what hostile callers do: what a first call imports, compiles or starts is not their doing."""
    for document in (flows.MIXED, flows.steps(), flows.scripts(), flows.code("while True: pass"), flows.code("x ="), "{}"):
        await attacker.ask("CheckDefinition", revision=attacker.draft, document=document)
        await attacker.run(document)
    await attacker.ask("GetDefinition", definition=f"{attacker.draft}/hostile")
    blob = await attacker.new_blob()
    for name in ("CommitRevision", "PublishRevision"):
        await attacker.ask(name, revision=f"{blob}@{'draft' if name.startswith('Commit') else 'latest'}")
