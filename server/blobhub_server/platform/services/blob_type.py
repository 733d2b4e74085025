"""BlobTypeService on the wire."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from blobhub.v1 import blob_type_pb2 as pb
from blobhub.v1 import blob_type_pb2_grpc as rpc


class BlobTypeService(rpc.BlobTypeServiceServicer):
    """Tells which blob types are installed."""

    def __init__(self, installed: Iterable[pb.BlobType]) -> None:
        self._answer = pb.ListBlobTypesResponse(blob_types=sorted(installed, key=lambda item: item.name))

    async def ListBlobTypes(self, request: pb.ListBlobTypesRequest, context: Any) -> pb.ListBlobTypesResponse:
        """See blob_type.proto."""
        return self._answer
