"""`blobhub-server` with a meter on its event loop; see `meter.MeteredServer`. Takes the command's own arguments."""

from __future__ import annotations

import asyncio
import os

import uvloop
from blobhub_server.__main__ import main
from meter import Meter, answer_questions

if __name__ == "__main__":
    uvloop.run = asyncio.run
    with Meter().installed() as installed:
        answer_questions(installed, os.getpid())
        main()
