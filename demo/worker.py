"""A worker: a program of yours that does steps of workflows. `python -m demo.worker ADDRESS KEY`."""

from __future__ import annotations

import asyncio
import re
import signal
import sys
from collections import Counter
from typing import Any

from blobhub_client import Task, Worker, connect


async def main(address: str, key: str) -> None:
    """Count words until it is told to end."""
    async with connect(address, key) as hub:
        worker = Worker(hub.channel, "acme", concurrency=4)

        @worker.task("words")
        def count_words(task: Task) -> dict[str, Any]:
            words = re.findall(r"[a-z]{4,}", task.input.lower())
            task.report_progress(f"{len(words)} words")
            return {"words": len(words), "most_frequent": Counter(words).most_common(3)}

        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, worker.stop)
        await worker.run()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
