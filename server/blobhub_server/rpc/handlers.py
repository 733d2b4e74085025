"""Makes gRPC handlers of an object that has a method for each RPC of a service.

Generated servicers would do the same, but they type a handler's second argument as gRPC's context; ours get a `Call`.
"""

from __future__ import annotations

from typing import Any

import grpc
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message_factory import GetMessageClass

from blobhub_server.start import StartError


class UnknownService(StartError):
    """No descriptor of a service is loaded."""


class MismatchedHandlers(StartError):
    """An object does not have exactly the methods that a service's descriptor names."""


def generic_handler(service: str, handlers: object) -> grpc.GenericRpcHandler:
    """A handler that serves a service with the methods of an object. Raises UnknownService, MismatchedHandlers."""
    try:
        described: ServiceDescriptor = descriptor_pool.Default().FindServiceByName(service)
    except KeyError:
        raise UnknownService(f"the service {service} is not known; import its stubs where its handlers are") from None
    _require_match(described, handlers)
    made = {method.name: _handler(method, getattr(handlers, method.name)) for method in described.methods}
    return grpc.method_handlers_generic_handler(service, made)


def _require_match(described: ServiceDescriptor, handlers: object) -> None:
    """Raise MismatchedHandlers unless each RPC has a method. Only methods named with a capital letter are handlers."""
    wanted = {method.name for method in described.methods}
    found = {name for name in dir(handlers) if name[0].isupper() and callable(getattr(handlers, name))}
    kind = type(handlers).__name__
    if missing := sorted(wanted - found):
        raise MismatchedHandlers(f"{kind} has no method {', '.join(missing)}, which {described.full_name} names")
    if unknown := sorted(found - wanted):
        raise MismatchedHandlers(f"{kind} has a method {', '.join(unknown)}, which {described.full_name} does not name")


_KINDS = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}
"""By whether the client streams, and whether the server does."""


def _handler(method: MethodDescriptor, handler: Any) -> grpc.RpcMethodHandler[Any, Any]:
    return _KINDS[method.client_streaming, method.server_streaming](
        handler,
        request_deserializer=GetMessageClass(method.input_type).FromString,
        response_serializer=GetMessageClass(method.output_type).SerializeToString,
    )
