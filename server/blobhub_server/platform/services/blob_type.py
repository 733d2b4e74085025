"""BlobTypeService on the wire."""

from __future__ import annotations

from collections.abc import Iterable

from blobhub.v1 import blob_type_pb2 as pb

from blobhub_server.blobtypes.call import Call


class BlobTypeService:
    """Lists the installed blob types."""

    def __init__(self, installed: Iterable[pb.BlobType]) -> None:
        self._answer = pb.ListBlobTypesResponse(blob_types=sorted(installed, key=lambda item: item.name))

    async def ListBlobTypes(self, request: pb.ListBlobTypesRequest, call: Call[None]) -> pb.ListBlobTypesResponse:
        return self._answer
