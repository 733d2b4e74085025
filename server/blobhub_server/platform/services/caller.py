"""CallerService on the wire."""

from __future__ import annotations

from typing import Any

from blobhub.v1 import access_pb2
from blobhub.v1 import caller_pb2 as pb
from blobhub.v1 import caller_pb2_grpc as rpc

from blobhub_server.platform.calls import caller


class CallerService(rpc.CallerServiceServicer):
    """Tells a caller who the server takes it for."""

    async def GetCaller(self, request: pb.GetCallerRequest, context: Any) -> pb.GetCallerResponse:
        """See caller.proto."""
        who = caller()
        return pb.GetCallerResponse(
            caller=pb.Caller(
                user_id=who.user_id or "",
                api_key_id=who.key_id or "",
                scope_id=who.blob_id or who.org_id or "",
                role=access_pb2.Role.ValueType(int(who.role)),
                anonymous=who.anonymous,
                administrator=who.administrator,
            )
        )
