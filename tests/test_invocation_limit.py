"""Limits that are reached by the invocations of one transaction."""

from __future__ import annotations

import uuid
from pathlib import Path

import acme
import flows
import joining
import pytest
from blobhub.v1 import limit_pb2, session_pb2
from blobhub_server.blobtypes.capabilities import Invocation
from blobhub_server.errors import BlobHubError
from blobhub_server.workflow.invocations import Invocations
from blobhub_server.workflow.store import log_size as log_size_store
from served import connected, served
from several_servers import inbox

PIPELINE = "acme/pipeline"


@pytest.mark.parametrize(
    ("name", "session", "started", "sessions"),
    [
        ("workflow.sessions_per_blob", "", 2, 2),
        ("workflow.executions_per_session", "shared", 2, 1),
        ("workflow.log_bytes", "shared", 0, 0),
        ("workflow.log_bytes", "", 0, 0),
    ],
)
async def test_a_limit_refuses_those_of_a_transaction_that_are_too_many_and_leaves_no_session_of_theirs(
    tmp_path: Path, database_url: str, name: str, session: str, started: int, sessions: int
) -> None:
    with joining.opening() as found:
        async with served(tmp_path / "data", database_url) as server, connected(server.address, server.admin_key) as api:
            await acme.organization(api)
            await acme.blob(api, PIPELINE)
            await api.put(flows.steps(), revision=f"{PIPELINE}@draft")
            actor_id = (await acme.key(api, PIPELINE, role="ROLE_WRITE")).api_key.id
            invocations = Invocations(found[0].host, found[0].definitions, found[0].runtime, inbox(found[0]))
            parent = "acme" if name == "workflow.log_bytes" else PIPELINE
            await api.limits.UpdateLimit(limit_pb2.UpdateLimitRequest(parent=parent, name=name, value=started or 1))
            if name == "workflow.log_bytes":
                organization_id = (await acme.get_blob(api, PIPELINE)).organization_id
                async with found[0].host.db.write() as tx:
                    await log_size_store.add(tx, {organization_id: 1})
            asked = [
                Invocation(
                    cause=str(uuid.uuid4()),
                    actor_id=actor_id,
                    revision=f"{PIPELINE}@draft",
                    definition="workflow",
                    session=session,
                )
                for _ in range(4)
            ]
            async with found[0].host.db.write() as tx:
                answers = await invocations.invoke_all(tx, asked)
            refused = [answer for answer in answers.values() if isinstance(answer, BlobHubError)]
            assert {answer.reason for answer in refused} == {"LIMIT_EXCEEDED"}
            assert len(answers) - len(refused) == started
            listed = await api.sessions.ListSessions(session_pb2.ListSessionsRequest(blob=PIPELINE))
            assert len(listed.sessions) == sessions
