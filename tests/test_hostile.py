"""Whatever hostile callers do, nobody waits for them: no callback of the server's loop, and no memory, beyond its bound.

A metered server is attacked by several hostile callers at once, kind by kind and then by all kinds together; an honest
client beside them is answered. What breaks a bound is tried again alone, so that the failure names it.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from figures import Figure
from honest import Report, honestly
from hostile.arena import SETTLING_SECONDS, Arena, Attack, arena
from hostile.attacker import Member
from hostile.corpus import KINDS, members
from meter import TRIES, Reading
from scale import sample

MAX_BYTES = 512 << 20
"""What a server's process may take, whoever attacks it."""

ATTACKERS = 4
FEW = 56
"""How many members are tried where not all are, which is at full scale."""
QUIET_SECONDS = 5.0


def test_the_corpus_has_hundreds_of_members_of_all_kinds_and_no_two_alike(figure: Figure) -> None:
    kinds = Counter(member.kind for member in members())
    assert set(kinds) == set(KINDS)
    assert kinds.total() >= 500
    assert min(kinds.values()) >= 50
    assert len(set(map(str, members()))) == kinds.total()
    alike: dict[str, Member] = {}
    for member in members():
        assert alike.setdefault(member.digest(), member) is member
    figure(f"{kinds.total()} hostile members: {dict(kinds)}; `python -m hostile` lists them")


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """What a round of attacks came to."""

    name: str
    attacks: list[Attack]
    reading: Reading
    begin_time: float
    end_time: float
    peak_bytes: int

    def told(self, report: Report, quiet_ms: float) -> str:
        """The round as a figure."""
        p99_ms = report.p99_ms(self.begin_time, self.end_time)
        worst, seconds = self.reading.worst, self.end_time - self.begin_time
        return (
            f"{self.name}: {len(self.attacks)} members in {seconds:.0f} s; worst of {self.reading.count} callbacks "
            f"{self.reading.worst_ms:.1f} ms ({worst[0].name if worst else 'none'}), worst collection "
            f"{self.reading.collector_ms:.1f} ms; peak {self.peak_bytes >> 20} MiB; GetBlob p99 {p99_ms:.1f} ms, "
            f"{p99_ms / quiet_ms:.1f} × quiet"
        )


async def attack(there: Arena, name: str, picked: Sequence[Member]) -> Round:
    """Have all attackers try members, and read the meter."""
    there.server.reset()
    begin_time = time.monotonic()
    attacks = await there.attack(picked)
    await asyncio.sleep(SETTLING_SECONDS)
    end_time = time.monotonic()
    return Round(
        name=name,
        attacks=attacks,
        reading=there.server.read(),
        begin_time=begin_time,
        end_time=end_time,
        peak_bytes=there.server.peak_bytes,
    )


async def beyond_again(there: Arena, fought: Round) -> list[str]:
    """What was beyond the bound in a round and is again: by its member, tried alone, or by the callback, tried together.

    What does not come again was the machine's: its caches are shared with whatever else runs on it.
    """
    found = []
    for callback in fought.reading.beyond():
        suspects = [attack.member for attack in fought.attacks if attack.covers(callback)]
        for member in dict.fromkeys(suspects):
            found += await beyond_alone(there, member)
        if not found:
            again = await attack(there, "again", suspects * TRIES)
            found += [f"{fought.name}, {len(suspects)} at once, took {worse}" for worse in again.reading.beyond()[:1]]
        if found:
            break
    return found


async def beyond_alone(there: Arena, member: Member) -> list[str]:
    """The worst that a member does to the loop, tried alone, if it is beyond the bound."""
    for _ in range(TRIES):
        if worse := (await there.alone(member)).beyond():
            return [f"`{member}` took {worse[0]}"]
    return []


@pytest.mark.timeout(3600)
async def test_no_hostile_caller_holds_the_loop_takes_the_memory_or_fails_an_honest_one(
    tmp_path: Path, figure: Figure
) -> None:
    picked = sample(members(), lambda member: [member.kind], seed=7)
    if len(picked) < len(members()):
        picked = picked[:FEW]
    log = tmp_path / "server.log"
    async with arena(tmp_path / "data", attackers=ATTACKERS, log=log) as there:
        async with honestly(there.server.address, there.server.admin_key) as honest:
            begin_time = time.monotonic()
            await asyncio.sleep(QUIET_SECONDS)
            quiet_end_time = time.monotonic()
            rounds = [await attack(there, kind, [member for member in picked if member.kind == kind]) for kind in KINDS]
            mixed = random.Random(7).sample(picked, len(picked) // 10)
            rounds.append(await attack(there, "all kinds", mixed))
            report = await honest.end()
        quiet_ms = report.p99_ms(begin_time, quiet_end_time)
        for fought in rounds:
            print(fought.told(report, quiet_ms))
            figure(fought.told(report, quiet_ms))
        figure(f"GetBlob p99 {quiet_ms:.1f} ms when quiet; {len(report.calls)} such calls and {report.runs} runs succeeded")
        assert report.failures == []
        assert there.faults() == []
        assert "internal_error" not in log.read_text(encoding="utf-8")
        assert max(fought.peak_bytes for fought in rounds) < MAX_BYTES
        assert [found for fought in rounds for found in await beyond_again(there, fought)] == []
