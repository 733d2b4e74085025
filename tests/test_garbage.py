"""Full collections of the garbage collector go over what is new, and what is set aside goes in the end."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from blobhub_server.garbage import ShortCollections
from figures import Figure
from scale import scaled

LIVE = scaled(1_000_000, least=300_000)
PROGRAM = """
import asyncio, gc, json, sys, time, weakref
from contextlib import nullcontext
from blobhub_server.garbage import FullCollections, ShortCollections

seen, begun, longest = [], 0.0, 0.0

def notice(phase, about):
    global begun, longest
    if phase == "start":
        seen.append(sum(len(gc.get_objects(each)) for each in range(1, about["generation"] + 1)))
        begun = time.thread_time()
    else:
        longest = max(longest, time.thread_time() - begun)

async def keep(count, put_off):
    collections, kept = FullCollections(), []
    if put_off:
        collections.put_off(60)
    for number in range(count):
        kept.append([number])
    if put_off:
        collections.resume()
        for number in range(count // 10):
            kept.append([number])
    return kept

async def main(count, short, put_off):
    collections = ShortCollections(max_pause_seconds=0.0, max_set_aside=1_000)
    async with collections.kept() if short else nullcontext():
        gc.callbacks.append(notice)
        kept = await keep(count, put_off)
        gc.callbacks.remove(notice)
        class Leading: pass
        one, other = Leading(), Leading()
        one.other, other.one = other, one
        gone = weakref.ref(one)
        gc.freeze()
        del one, other
        gc.collect()
        held = gone() is not None
        collections._looked_at = 0
        collections.look()
    print(json.dumps({"most": max(seen, default=0), "ms": longest * 1000, "held": held, "gone": gone() is None}))

asyncio.run(main(*json.loads(sys.argv[1])))
"""


@pytest.mark.parametrize("put_off", [False, True])
def test_a_full_collection_goes_over_few_objects_however_many_there_are(figure: Figure, *, put_off: bool) -> None:
    before, after = (_made(LIVE, short, put_off) for short in (False, True))
    figure(
        f"collections while {LIVE} objects come and stay{', put off meanwhile' if put_off else ''}: over {before['most']} "
        f"at most, {before['ms']:.0f} ms; kept short over {after['most']}, {after['ms']:.0f} ms"
    )
    assert before["most"] > LIVE // 2
    assert after["most"] < LIVE // 4


def test_what_is_set_aside_and_leads_to_each_other_goes_when_all_is_looked_at() -> None:
    assert _made(1_000, True, False) | {"most": 0, "ms": 0} == {"most": 0, "ms": 0, "held": True, "gone": True}
    assert not ShortCollections.active, "a server in this process sets nothing aside"


def _made(count: int, short: bool, put_off: bool) -> dict[str, float]:
    """What a process tells that makes so many objects, which stay."""
    arguments = json.dumps([count, short, put_off])
    done = subprocess.run([sys.executable, "-c", PROGRAM, arguments], capture_output=True, text=True, check=True)
    told: dict[str, float] = json.loads(done.stdout)
    return told
