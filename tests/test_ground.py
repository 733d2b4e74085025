"""The ground shakes: the database is away, a connection is lost, a disk is full."""

from __future__ import annotations

from pathlib import Path

import grpc
from blobhub_server.blobtypes.conformance import reason_of, unpack
from calling import ask
from google.rpc import error_details_pb2
from ground import away
from test_ownership import together
from waiting import until


async def test_a_call_that_the_database_has_no_ear_for_is_to_be_made_again(tmp_path: Path, database_url: str) -> None:
    async with together(tmp_path, database_url, count=1) as ((opened, api),):
        numbers = iter(range(10_000))

        async def refused() -> grpc.aio.AioRpcError | None:
            """SQLite has room for some more rows on the pages that there are."""
            try:
                await ask(api, "CreateOrganization", alias=f"organization-{next(numbers)}")
            except grpc.aio.AioRpcError as error:
                return error
            return None

        async with away(opened.host.db):
            error = await until(refused)
        assert (error.code(), reason_of(error)) == (grpc.StatusCode.UNAVAILABLE, "STORAGE_UNAVAILABLE")
        again = error_details_pb2.RetryInfo()
        assert unpack(error, again)
        assert again.retry_delay.seconds == 1
        assert error.details() == "the server cannot use its storage now; try again"
        assert await refused() is None
