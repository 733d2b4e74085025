"""Server reflection, v1alpha and v1, with comments.

grpcio ships v1alpha only. Version 1 is the same protocol under another package name
(https://github.com/grpc/grpc/blob/master/doc/server-reflection.md), so its descriptor is made from v1alpha's and the
same servicer answers both.

grpcio answers from the pool of descriptors, which keeps no comments; they are added to its answers.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor import FileDescriptor
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_reflection.v1alpha._async import ReflectionServicer

from blobhub_server.rpc.comments import Comments

V1 = "grpc.reflection.v1.ServerReflection"
V1ALPHA = "grpc.reflection.v1alpha.ServerReflection"


def _v1_messages() -> tuple[Any, Any]:
    """The request and response classes of version 1, whose file is added to the pool if it is not there."""
    pool = descriptor_pool.Default()
    file = descriptor_pb2.FileDescriptorProto()
    reflection_pb2.DESCRIPTOR.CopyToProto(file)
    file.name = "grpc/reflection/v1/reflection.proto"
    file.package = "grpc.reflection.v1"
    file.ClearField("options")
    _rename(file)
    pool.AddSerializedFile(file.SerializeToString())
    names = ("ServerReflectionRequest", "ServerReflectionResponse")
    found = [message_factory.GetMessageClass(pool.FindMessageTypeByName(f"grpc.reflection.v1.{name}")) for name in names]
    return found[0], found[1]


def _rename(file: descriptor_pb2.FileDescriptorProto) -> None:
    """Point the types that the file refers to at its own package."""
    for message in file.message_type:
        for field in message.field:
            if field.type_name:
                field.type_name = field.type_name.replace(".grpc.reflection.v1alpha.", ".grpc.reflection.v1.")
    for service in file.service:
        for method in service.method:
            method.input_type = method.input_type.replace("v1alpha", "v1")
            method.output_type = method.output_type.replace("v1alpha", "v1")


async def _as_v1alpha(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
    """The same requests, as the messages the servicer knows; on the wire they are the same bytes."""
    async for request in requests:
        yield reflection_pb2.ServerReflectionRequest.FromString(request.SerializeToString())


class _Pool:
    """The pool of descriptors; it finds a file by a method in it too, as the protocol wants; protobuf's does not."""

    def __getattr__(self, name: str) -> Any:
        return getattr(descriptor_pool.Default(), name)

    def FindFileContainingSymbol(self, symbol: str) -> FileDescriptor:
        """The file that a symbol is in. Raises KeyError."""
        pool = descriptor_pool.Default()
        try:
            return pool.FindFileContainingSymbol(symbol)
        except KeyError:
            service, _, method = symbol.rpartition(".")
            return pool.FindServiceByName(service).methods_by_name[method].containing_service.file


class _Commented(ReflectionServicer):
    """Answers files with their comments."""

    def __init__(self, services: Sequence[str], comments: Comments) -> None:
        super().__init__(services, _Pool())
        self._comments = comments

    async def ServerReflectionInfo(self, requests: Any, context: Any) -> Any:
        answers: Any = super().ServerReflectionInfo(requests, context)
        async for answer in answers:
            if answer.HasField("file_descriptor_response"):  # Touching it would make another kind of answer one of these.
                files = answer.file_descriptor_response.file_descriptor_proto
                files[:] = [self._comments.add(file) for file in files]
            yield answer


def add_reflection(server: grpc.aio.Server, services: Sequence[str], comments: Comments) -> None:
    """Serve reflection of the named services, and of itself."""
    servicer: Any = _Commented((*services, V1ALPHA, V1), comments)
    add: Any = reflection_pb2_grpc.add_ServerReflectionServicer_to_server
    add(servicer, server)
    request, response = _v1_messages()

    async def info(requests: Any, context: Any) -> Any:
        async for answer in servicer.ServerReflectionInfo(_as_v1alpha(requests), context):
            yield response.FromString(answer.SerializeToString())

    handler = grpc.stream_stream_rpc_method_handler(
        info, request_deserializer=request.FromString, response_serializer=response.SerializeToString
    )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(V1, {"ServerReflectionInfo": handler}),))
