"""A client of HTTP/2 that minds no manners: it reads when it is told to, and sends as much of a message as it likes."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from google.rpc import error_details_pb2, status_pb2
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ConnectionTerminated, DataReceived, Event, ResponseReceived, StreamEnded, StreamReset, TrailersReceived
from h2.settings import SettingCodes, Settings
from waiting import until

ROOM = 1 << 20


@dataclass
class RawCall:
    """What has come of one call: its messages, as bytes, and how it ended, if it has."""

    data: bytearray = field(default_factory=bytearray)
    trailers: dict[str, bytes] = field(default_factory=dict)
    ended: bool = False

    @property
    def code(self) -> int | None:
        """The number of its status."""
        return int(self.trailers["grpc-status"]) if "grpc-status" in self.trailers else None

    def messages(self) -> list[bytes]:
        """Its messages that are whole."""
        found, place = [], 0
        while place + 5 <= len(self.data):
            end = place + 5 + int.from_bytes(self.data[place + 1 : place + 5], "big")
            if end > len(self.data):
                break
            found.append(bytes(self.data[place + 5 : end]))
            place = end
        return found


class RawConnection:
    """One connection. What is not read of its calls stays with the server, beyond what their windows take."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, deaf: bool, window: int | None
    ) -> None:
        self._reader = reader
        self._deaf = deaf
        self._writer = writer
        self._http = H2Connection(H2Configuration(client_side=True, header_encoding="latin-1"))
        self.calls: dict[int, RawCall] = {}
        self.closed = asyncio.Event()
        if window is not None:
            values = {SettingCodes.INITIAL_WINDOW_SIZE: window}
            self._http.local_settings = Settings(client=True, initial_values=values)
        self._http.initiate_connection()
        self._flush()

    def _flush(self) -> None:
        self._writer.write(self._http.data_to_send())

    async def hear(self) -> None:
        """Take in what comes until the server closes the connection."""
        try:
            while data := await self._reader.read(1 << 16):
                if self._deaf:
                    continue
                for event in self._http.receive_data(data):
                    self._take(event)
                self._flush()
        except OSError:
            pass
        finally:
            self.closed.set()

    def _take(self, event: Event) -> None:
        if isinstance(event, ConnectionTerminated):
            return
        call = self.calls.get(getattr(event, "stream_id", 0))
        if call is None:
            return
        if isinstance(event, DataReceived):
            call.data += event.data
        elif isinstance(event, ResponseReceived | TrailersReceived):
            call.trailers |= {name: value.encode("latin-1") for name, value in event.headers}
        elif isinstance(event, StreamEnded | StreamReset):
            call.ended = True

    def close(self) -> None:
        """Close the connection."""
        self._writer.close()

    async def drain(self) -> None:
        """Wait until what was sent has left."""
        await self._writer.drain()

    def begin(self, path: str, sent: bytes, *, key: str | None = None, length: int | None = None, **metadata: str) -> int:
        """Begin a call and send its one message; with a `length`, only the beginning of a message of so many bytes."""
        stream = self._http.get_next_available_stream_id()
        self.calls[stream] = RawCall()
        headers = {":method": "POST", ":scheme": "http", ":path": path, ":authority": "test", "te": "trailers"}
        headers |= {"content-type": "application/grpc"} | _bearer(key) | metadata
        self._http.send_headers(stream, list(headers.items()))
        head = b"\0" + (len(sent) if length is None else length).to_bytes(4, "big")
        self._http.send_data(stream, head + sent, end_stream=length is None)
        self._flush()
        return stream

    def send_more(self, stream: int, most: int) -> int:
        """Send as many bytes more of a message as the server takes now, of `most`; how many it took."""
        if self.calls[stream].ended:
            return 0
        size = min(most, self._http.local_flow_control_window(stream), self._http.max_outbound_frame_size)
        if size > 0:
            self._http.send_data(stream, bytes(size))
            self._flush()
        return size

    async def read(self, stream: int) -> RawCall:
        """Read a call to its end."""
        call = self.calls[stream]

        def is_read() -> bool:
            if call.ended or self.closed.is_set():
                return True
            if self._http.remote_flow_control_window(stream) < ROOM:
                self._http.increment_flow_control_window(ROOM)
                self._http.increment_flow_control_window(ROOM, stream)
                self._flush()
            return False

        await until(is_read)
        return call


def _bearer(key: str | None) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"} if key else {}


def details(call: RawCall) -> tuple[error_details_pb2.ErrorInfo, error_details_pb2.RetryInfo]:
    """What the status of a raw call says beside its code."""
    encoded = call.trailers["grpc-status-details-bin"]
    status = status_pb2.Status.FromString(base64.b64decode(encoded + b"=" * (-len(encoded) % 4)))
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    assert any(detail.Unpack(info) for detail in status.details)
    _ = any(detail.Unpack(retry) for detail in status.details)
    return info, retry


@asynccontextmanager
async def raw_connection(address: str, *, deaf: bool = False, window: int | None = None) -> AsyncIterator[RawConnection]:
    """A connection to a server that serves in clear. A deaf one takes nothing in, and so answers nothing.

    `window` is how many bytes each call may send before it is read, 64 KiB unless told otherwise.
    """
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    made = RawConnection(reader, writer, deaf=deaf, window=window)
    hearing = asyncio.create_task(made.hear())
    try:
        yield made
    finally:
        writer.close()
        await hearing
