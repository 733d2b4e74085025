"""Changes of an organization and of what is in it, at the same time: they wait for each other, and never in a circle."""

from __future__ import annotations

import asyncio

import acme
import flows
from acme import READ
from blobhub.v1 import limit_pb2, metadata_pb2, organization_pb2, revision_pb2, session_object_pb2, session_pb2
from scale import scaled
from served import Api

ROUNDS = scaled(12, least=4)


async def test_changes_of_an_organization_and_of_its_blob_go_through_side_by_side(api: Api) -> None:
    await acme.organization(api)
    blob = await acme.blob(api)
    await api.put(flows.steps(2))
    await acme.commit(api)
    draft = await acme.branch(api)
    session = await acme.session(api, draft.id)
    for number in range(ROUNDS):
        await acme.user(api, f"user-{number}")
        limit = limit_pb2.UpdateLimitRequest(parent=blob.id, name="blob.revisions", value=100)
        rename = organization_pb2.UpdateOrganizationRequest(organization=blob.organization_id, alias=f"acme-{number}")
        record = metadata_pb2.CreateMetadataRequest(parent=blob.id, key=str(number), value={"number_value": 1})
        put = session_object_pb2.PutSessionObjectRequest(session=session.id, alias="one", value={"number_value": 1})
        await asyncio.gather(
            acme.update_blob(api, blob.id, alias=f"pipeline-{number}"),
            acme.update_blob(api, blob.id, description=str(number)),
            acme.member(api, blob.id, f"user-{number}", READ),
            acme.key(api, blob.id),
            api.limits.UpdateLimit(limit),
            api.organizations.UpdateOrganization(rename),
            api.revisions.CreateRevision(revision_pb2.CreateRevisionRequest(blob=blob.id)),
            acme.update_blob(api, blob.id, default_revision=blob.default_revision_id),
            api.metadata.CreateMetadata(record),
            api.session_objects.PutSessionObject(put),
            api.put(flows.steps(number + 1), revision=draft.id),
            acme.session(api, draft.id),
        )
    listed = await api.sessions.ListSessions(session_pb2.ListSessionsRequest(blob=blob.id))
    assert len(listed.sessions) == ROUNDS + 1
