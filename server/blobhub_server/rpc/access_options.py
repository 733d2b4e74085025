"""The `blobhub.v1.access` option of every method. A method without it stops the server from starting."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass

from blobhub.v1 import access_pb2
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import Descriptor, MethodDescriptor

from blobhub_server.start import StartError

UNBOUND = frozenset({access_pb2.PERMISSION_ANYONE, access_pb2.PERMISSION_CALLER, access_pb2.PERMISSION_USER})
"""Permissions that are not held on a resource."""


class MissingAccess(StartError):
    """A method does not say what access it needs."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What a method needs: a permission, and the request field and kind of the resource it is held on."""

    permission: access_pb2.Permission.ValueType
    field: str
    resource: str
    public_read: bool
    request: Descriptor


def rules(services: Iterable[str]) -> dict[str, Rule]:
    """The rule of every method of the named services, by its path `/package.Service/Method`. Raises MissingAccess."""
    pool = descriptor_pool.Default()
    return {
        f"/{service}/{method.name}": _rule(service, method)
        for service in services
        for method in pool.FindServiceByName(service).methods
    }


def _rule(service: str, method: MethodDescriptor) -> Rule:
    name = f"{service}.{method.name}"
    option = method.GetOptions().Extensions[access_pb2.access]
    if option.permission == access_pb2.PERMISSION_UNSPECIFIED:
        raise MissingAccess(f"{name} does not say what access it needs; add the option (blobhub.v1.access)")
    if option.permission not in UNBOUND:
        field = method.input_type.fields_by_name.get(option.field)
        if field is None or field.type != field.TYPE_STRING or field.is_repeated or not option.resource:
            raise MissingAccess(f"{name} names no resource: its access option needs a string field and a resource")
    return Rule(option.permission, option.field, option.resource, option.public_read, method.input_type)


def check_resources(methods: Mapping[str, Rule], known: Container[str]) -> None:
    """Raise MissingAccess when a rule names a kind of resource that nobody resolves."""
    for path, rule in methods.items():
        if rule.permission not in UNBOUND and rule.resource not in known:
            raise MissingAccess(f"{path} asks for access on a {rule.resource}, which no blob type brings")
