"""`python -m hostile`: the list of the corpus; with `--alone`, what each member does to a server that is otherwise idle.

A word after the options picks the members whose names have it.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from pathlib import Path

from hostile.arena import arena
from hostile.corpus import members


async def main(*asked: str) -> None:
    words = [word for word in asked if not word.startswith("--")]
    picked = [member for member in members() if all(word in str(member) for word in words)]
    if "--alone" not in asked:
        print("\n".join(map(str, picked)))
        return
    with tempfile.TemporaryDirectory() as folder:
        async with arena(Path(folder) / "data", attackers=1, log=Path(folder) / "server.log") as there:
            for member in picked:
                begin_time, rested = time.monotonic(), there.server.memory_bytes
                worst = (await there.alone(member)).worst
                took = time.monotonic() - begin_time
                grown = (there.server.peak_bytes - rested) >> 20
                at = f"{worst[0].cpu_ms:6.1f} ms {worst[0].name} {' < '.join(worst[0].stack[:5])}" if worst else "   0.0 ms"
                told = ", ".join(f"{count} {outcome}" for outcome, count in there.attackers[0].outcomes.items())
                there.attackers[0].outcomes.clear()
                print(f"{member} | {at} | +{grown} MiB | {took:.1f} s | {told}", flush=True)


asyncio.run(main(*sys.argv[1:]))
