"""A request that a server is killed under goes out again, under the same key; what it has answered is not asked again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import acme
import pytest
from asking import answer, started
from calling import ask
from fetching import fetches
from served import ServerProcess, connected
from waiting import until
from web import Answer, said, web

pytestmark = pytest.mark.either_database


async def test_a_request_under_which_the_server_was_killed_goes_out_again_with_its_key(
    tmp_path: Path, database_url: str | None
) -> None:
    async with web(lambda got: Answer(raw=b"", hang=True)) as other:
        server = ServerProcess(tmp_path / "data", database_url, http_allow=f"127.0.0.1:{other.port}", lease_seconds=1)
        async with server.running(), connected(server.address, server.admin_key) as api:
            await acme.organization(api)
            await acme.blob(api)
            execution = await started(api, fetches(method="POST", url=other.url, outputs=("body",)))
            await until(lambda: other.asked)
        other.respond = lambda got: said("done")
        async with server.running(), connected(server.address, server.admin_key) as api:

            async def ended() -> Any:
                found = (await ask(api, "GetExecution", execution=execution.id)).execution
                return found if found.HasField("end_time") else None

            assert answer(await until(ended)) == "done"
        assert [got.headers["idempotency-key"] for got in other.asked] == [f"{execution.id}/2"] * 2
