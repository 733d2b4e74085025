"""How long it takes to refuse what is absent, and what the caller may not see: the two must not be told apart by it."""

from __future__ import annotations

import statistics
import time

import grpc
from blobhub.v1 import api_key_pb2, blob_pb2, organization_pb2, user_pb2
from served import WORKFLOW, Api, connected

CALLS = 2000


async def refusing(api: Api, address: str) -> list[tuple[str, float, float]]:
    """For a readable and an unreadable organization: its name, and the median milliseconds of absent and of forbidden."""
    await api.users.CreateUser(user_pb2.CreateUserRequest(name="outsider"))
    key = (await api.api_keys.CreateApiKey(api_key_pb2.CreateApiKeyRequest(parent="@outsider", role="ROLE_ADMIN"))).key
    found = []
    for name, visibility in (("readable", "VISIBILITY_PUBLIC"), ("unreadable", "VISIBILITY_PRIVATE")):
        organization = organization_pb2.CreateOrganizationRequest(alias=name, visibility=visibility)
        await api.organizations.CreateOrganization(organization)
        await api.blobs.CreateBlob(blob_pb2.CreateBlobRequest(organization=name, alias="private", type=WORKFLOW))
        async with connected(address, key) as outsider:
            found.append((name, *await _medians(outsider, f"{name}/missing", f"{name}/private")))
    return found


async def _medians(outsider: Api, *references: str) -> list[float]:
    """The median of each, in milliseconds; the calls are made in turns, so that a drifting machine touches all."""
    took: list[list[float]] = [[] for _ in references]
    for _ in range(CALLS):
        for each, reference in zip(took, references, strict=True):
            start = time.perf_counter()
            try:
                await outsider.blobs.GetBlob(blob_pb2.GetBlobRequest(blob=reference))
            except grpc.aio.AioRpcError:
                each.append((time.perf_counter() - start) * 1000)
    return [statistics.median(each) for each in took]
