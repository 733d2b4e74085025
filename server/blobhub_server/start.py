"""Why a server cannot start, or may not work well; printed to the operator as one line."""

from __future__ import annotations


class StartError(Exception):
    """The server cannot start; the message says why and what to do."""


class StartWarning(Exception):
    """Something is probably wrong; the message says what."""


class PortInUse(StartError):
    """An address cannot be listened on."""

    def __init__(self, listen: str) -> None:
        super().__init__(f"cannot listen on {listen}: the port is taken, or the address is not this machine's")


class NothingToServe(StartError):
    """There is to be a port for large messages, and no blob type has a service for it."""

    def __init__(self) -> None:
        super().__init__("BLOBHUB_INFERENCE_LISTEN is set, and no blob type that is installed has services for that port")
