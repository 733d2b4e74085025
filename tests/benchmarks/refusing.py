"""How long it takes to refuse what is absent, and what the caller may not see: the two must not be told apart by it."""

from __future__ import annotations

import statistics
import time

import grpc
from blobhub.v1 import api_key_pb2, blob_pb2, organization_pb2, user_pb2
from served import WORKFLOW, Api, connected

CALLS = 2000


async def refusing(api: Api, address: str) -> list[tuple[str, list[float]]]:
    """For a readable and an unreadable organization: its name, and the median milliseconds of four references.

    They are to two blobs that are absent and two that are hidden, in turns: how far two of a kind are apart is the noise.
    """
    await api.users.CreateUser(user_pb2.CreateUserRequest(name="outsider"))
    key = (await api.api_keys.CreateApiKey(api_key_pb2.CreateApiKeyRequest(parent="@outsider", role="ROLE_ADMIN"))).key
    found = []
    for name, visibility in (("readable", "VISIBILITY_PUBLIC"), ("unreadable", "VISIBILITY_PRIVATE")):
        organization = organization_pb2.CreateOrganizationRequest(alias=name, visibility=visibility)
        await api.organizations.CreateOrganization(organization)
        for alias in ("private", "another"):
            await api.blobs.CreateBlob(blob_pb2.CreateBlobRequest(organization=name, alias=alias, type=WORKFLOW))
        references = [f"{name}/{alias}" for alias in ("missing", "private", "nothing", "another")]
        async with connected(address, key) as outsider:
            found.append((name, await _medians(outsider, references)))
    return found


async def _medians(outsider: Api, references: list[str]) -> list[float]:
    """The median of each, in milliseconds; the calls are made in turns, so that a drifting machine touches all."""
    took: dict[str, list[float]] = {reference: [] for reference in references}
    for turn in range(CALLS):
        first = turn % len(references)
        for reference in references[first:] + references[:first]:
            start = time.perf_counter()
            try:
                await outsider.blobs.GetBlob(blob_pb2.GetBlobRequest(blob=reference))
            except grpc.aio.AioRpcError:
                took[reference].append((time.perf_counter() - start) * 1000)
    return [statistics.median(each) for each in took.values()]
