"""Sessions and their aliases."""

from __future__ import annotations

import flows
import grpc
from blobhub_server.blobtypes.conformance import expect_refusal
from calling import ask
from served import Api


async def test_an_alias_is_one_open_sessions_of_a_revision(api: Api) -> None:
    await api.session(flows.steps(1))
    await ask(api, "CommitRevision", revision="acme/pipeline@draft")
    await ask(api, "CreateRevision", blob="acme/pipeline", base_revision="latest")
    of_commit, of_draft = "acme/pipeline@latest", "acme/pipeline@draft"
    made = [(await ask(api, "CreateSession", revision=each, alias="daily")).session for each in (of_commit, of_draft)]
    assert made[0].revision_id != made[1].revision_id
    for revision in (of_commit, of_draft):
        again = ask(api, "CreateSession", revision=revision, alias="daily")
        await expect_refusal(again, grpc.StatusCode.ALREADY_EXISTS, "ALREADY_EXISTS")
    await ask(api, "CloseSession", session=made[0].id)
    assert (await ask(api, "CreateSession", revision=of_commit, alias="daily")).session.alias == "daily"
    await expect_refusal(
        ask(api, "CreateSession", revision=of_draft, alias="daily"), grpc.StatusCode.ALREADY_EXISTS, "ALREADY_EXISTS"
    )
