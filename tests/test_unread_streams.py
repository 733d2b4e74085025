"""Every stream of answers that the contract has is ended when nobody reads it, with a status that says where to go on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import acme
import flows
import grpc
import models
import schedules
import structlog
import tasks
from blobhub_server.objects.outline import BLOCK_BYTES
from blobhub_server.rpc.unread import MAX_BYTES_PER_SENDER
from calling import METHODS, ask, request_of
from figures import Figure
from inferring import doubling
from meter import MeteredServer
from methods import served_methods
from raw_http2 import details, raw_connection
from served import Api, connected, served
from waiting import until

DOWNLOAD = METHODS["DownloadModel"].path
FITTING = MAX_BYTES_PER_SENDER // BLOCK_BYTES
"""So many chunks of downloads one caller may leave unread."""
RESUMED_BY_ITS_CLIENT = {
    "DownloadModel": "its client goes on from the bytes it has, by `offset`",
    "LeaseTasks": "its client leases again, and what it has leased is counted under its name",
    "StreamQueue": "its client streams again, which begins with the queue as it is",
    "StreamInfer": "its answers are those of requests that the client has sent, and carry their tags",
}
"""Streams whose status names no last sequence, and why. What is large in them is counted in `rpc/unread.py`."""


async def requests_of(api: Api) -> dict[str, dict[str, Any]]:
    """A request of each method that streams answers, to something of which there is an answer."""
    session_id = await api.session(flows.steps(3))
    spec = {"definition": "workflow"}
    run = await ask(api, "RunExecution", session=session_id, spec=spec)
    await acme.blob(api, schedules.NIGHTLY, schedules.SCHEDULER)
    schedule = await schedules.create(api)
    await schedules.trigger(api, schedule.id)
    await acme.blob(api, "acme/scorer", models.ONNX)
    operation = await models.put(api, doubling().SerializeToString())
    await models.processed(api, operation)
    await tasks.start(api, await api.session(tasks.calls(), organization="workers"))
    numbers = {"name": "x", "datatype": "FP32", "shape": [1, 4], "floats": [1, 2, 3, 4]}
    return {
        "BackfillSchedule": {
            "schedule": schedule.id,
            "start_time": {"seconds": 1_700_000_000},
            "end_time": {"seconds": 1_700_200_000},
        },
        "DownloadModel": {"revision": models.DRAFT},
        "LeaseTasks": {"queue": "workers/resize", "maximum_tasks": 1},
        "RunExecution": {"session": session_id, "spec": spec},
        "StreamInfer": {"revision": models.DRAFT, "inputs": [numbers], "tag": "one"},
        "StreamQueue": {"queue": "workers/resize"},
        "WatchAuditEntries": {"parent": "acme"},
        "WatchBlob": {"blob": "acme/pipeline"},
        "WatchExecution": {"execution": run.execution.id},
        "WatchFirings": {"blob": schedules.NIGHTLY},
        "WatchOperation": {"operation": operation.id},
        "WatchSession": {"session": session_id},
    }


async def test_every_stream_of_answers_is_ended_when_nobody_reads_it_and_says_where_to_go_on(tmp_path: Path) -> None:
    streams = {method.name: method for method in served_methods() if method.server_streaming}
    async with (
        served(tmp_path / "data", None, max_unread_seconds=0.5) as server,
        connected(server.address, server.admin_key) as api,
        raw_connection(server.address, window=0) as raw,
    ):
        requests = await requests_of(api)
        assert requests.keys() == streams.keys()
        sent = {name: request_of(METHODS[name], **fields).SerializeToString() for name, fields in requests.items()}
        with structlog.testing.capture_logs() as logged:
            calls = {name: raw.begin(streams[name].path, sent[name], key=server.admin_key) for name in sent}
            await until(lambda: sum(line.get("code") == "UNAVAILABLE" for line in logged) == len(calls))
        for name, number in calls.items():
            call = await raw.read(number)
            info, retry = details(call)
            assert (call.code, info.reason) == (grpc.StatusCode.UNAVAILABLE.value[0], "STREAM_UNREAD"), name
            assert retry.HasField("retry_delay"), name
            assert len(call.messages()) == 1, f"{name} hands over one message, and no other before that one is read"
            assert ("last_sequence" in info.metadata) == (name not in RESUMED_BY_ITS_CLIENT), name


async def test_downloads_that_nobody_reads_hold_a_chunk_each_and_together_what_one_caller_may(
    tmp_path: Path, figure: Figure
) -> None:
    server = MeteredServer(tmp_path / "data", log=tmp_path / "log", log_level="info")
    async with server.running(), connected(server.address, server.admin_key) as api:
        await models.blob(api)
        large = doubling(metadata={"note": "x" * (3 * BLOCK_BYTES)}).SerializeToString()
        await models.processed(api, await models.upload(api, large))
        assert (await models.download(api))[1] == large
        request = request_of(METHODS["DownloadModel"], revision=models.DRAFT).SerializeToString()
        server.reset()
        before = server.memory_bytes
        async with raw_connection(
            server.address, window=1_000
        ) as raw:  # so that each takes the first answer, and a bit more
            for _ in range(2 * FITTING):
                raw.begin(DOWNLOAD, request, key=server.admin_key)
            # What is told of it is in the log: the status comes after what nobody reads.
            await until(lambda: (tmp_path / "log").read_text().count("STREAM_UNREAD") >= FITTING)
        held = server.peak_bytes - before
    open_ = 2 * FITTING - (tmp_path / "log").read_text().count("STREAM_UNREAD")
    assert 0 < open_ <= FITTING
    figure(f"{open_} downloads that nobody reads hold {held / open_ / 1024:.0f} KiB each, {held >> 20} MiB together")
    assert held < 8 * MAX_BYTES_PER_SENDER
