"""SignalService on the wire."""

from __future__ import annotations

from functools import partial

from blobhub.v1 import event_pb2
from blobhub.v1 import signal_pb2 as pb

from blobhub_server.blobtypes import json_field
from blobhub_server.blobtypes.call import Call
from blobhub_server.blobtypes.contract import BlobView, Host
from blobhub_server.db.engine import Transaction
from blobhub_server.errors import WrongBlobType
from blobhub_server.rpc.paging import Page
from blobhub_server.rpc.wire import to_timestamp
from blobhub_server.turnstile import off_loop
from blobhub_server.workflow.errors import TYPE
from blobhub_server.workflow.rules.signal import KEPT_FOR, SignalWait
from blobhub_server.workflow.runtime.signals import SignalCrossed, Signals
from blobhub_server.workflow.store import wait as store


def to_proto(wait: SignalWait) -> pb.Wait:
    """A wait as its message."""
    return pb.Wait(
        execution_id=wait.execution_id,
        step=wait.step,
        processor_id=wait.component_id,
        signal=event_pb2.Signal(name=wait.name, key=wait.key),
        create_time=to_timestamp(wait.create_time),
        wake_time=to_timestamp(wait.wake_time) if wait.wake_time else None,
    )


class SignalService:
    """Sends signals by key, and lists who waits for some."""

    def __init__(self, host: Host, signals: Signals) -> None:
        self._host = host
        self._signals = signals

    async def SendSignal(self, request: pb.SendSignalRequest, call: Call[BlobView]) -> pb.SendSignalResponse:
        blob = call.resource
        if blob.type != TYPE:
            raise WrongBlobType(blob.type, TYPE)
        read = partial(json_field.read, request, "value")
        value, text = await off_loop(request.ByteSize(), call.caller.party, read)

        async def make(tx: Transaction) -> pb.SendSignalResponse:
            got = await self._signals.send(tx, blob, name=request.name, key=request.key, value=value, text=text)
            expires = None if got else to_timestamp(self._host.clock() + KEPT_FOR)
            return pb.SendSignalResponse(execution_id=got, expire_time=expires)

        while True:
            try:
                return await call.once(make)
            except SignalCrossed:
                continue

    async def ListWaits(self, request: pb.ListWaitsRequest, call: Call[BlobView]) -> pb.ListWaitsResponse:
        blob_id, order_by = call.resource.id, request.order_by or "create_time"
        page = Page.parse(request, blob_id, request.name, request.key, order_by)
        async with self._host.db.scan(call.caller.party) as tx:
            found = await store.page(
                tx,
                blob_id,
                name=request.name,
                key=request.key,
                order_by=order_by,
                after=page.after,
                limit=page.limit + 1,
            )
        items, token = await page.fill(found, store.order(order_by).key, to_proto)
        return pb.ListWaitsResponse(waits=items, next_page_token=token)
