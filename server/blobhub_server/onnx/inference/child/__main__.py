"""Load the model that comes over the socket on the standard input, and answer requests: `python -I -m … limits`.

The limits are JSON. First comes the model: its size, and its bytes. Then come requests (`frame.py`), until the socket is
closed.
"""

from __future__ import annotations

import json
import socket
import sys
from typing import IO

from blobhub_server.onnx import confinement
from blobhub_server.onnx.inference.frame import PREFIX, decode_header, encode_frame
from blobhub_server.onnx.inference.limits import Batching, ProcessLimits

SPARE_SECONDS = 5
"""How much longer than the server this process waits for its own end."""


def main() -> None:
    """Limit this process, read the model, open nothing more, and only then load it and answer."""
    said = json.loads(sys.argv[1])
    limits = ProcessLimits(**said | {"batching": Batching(said["batching"])})
    confinement.let_others_go_first()
    confinement.limit_resources(limits.max_memory_bytes)
    confinement.limit_time(limits.max_load_seconds + SPARE_SECONDS)
    connection = socket.socket(fileno=0)
    with connection.makefile("rb") as incoming, connection.makefile("wb") as outgoing:
        _serve(incoming, outgoing, limits)


def _serve(incoming: IO[bytes], outgoing: IO[bytes], limits: ProcessLimits) -> None:
    from blobhub_server.onnx.inference.child import session  # noqa: PLC0415  under the limits of this process

    # The server bounds how long the model takes to come, and its end is the end of the socket.
    confinement.limit_time(0)
    size = int.from_bytes(_read(incoming, 8), "little")
    model = _read(incoming, size)
    confinement.open_nothing_more()
    confinement.limit_time(limits.max_load_seconds + SPARE_SECONDS)
    loaded = session.load(model, limits)
    confinement.limit_time(0)
    del model
    outgoing.writelines(encode_frame(loaded.description))
    outgoing.flush()
    while prefix := incoming.read(PREFIX.size):
        header_bytes, data_bytes = PREFIX.unpack(prefix)
        header = decode_header(_read(incoming, header_bytes))
        data = _read(incoming, data_bytes)
        # A server that was killed ends nobody; an endless loop would go on for ever.
        confinement.limit_time(limits.max_run_seconds + SPARE_SECONDS)
        answer = loaded.answer(header, data)
        confinement.limit_time(0)
        outgoing.writelines(answer)
        outgoing.flush()


def _read(incoming: IO[bytes], size: int) -> bytes:
    data = incoming.read(size)
    if len(data) < size:
        raise SystemExit  # The server has gone.
    return data


main()
