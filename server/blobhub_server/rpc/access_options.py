"""The `blobhub.v1.access` option of every method. A method without it stops the server from starting."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass

from blobhub.v1 import access_pb2
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import Descriptor, MethodDescriptor

from blobhub_server.start import StartError

BOUND = frozenset({access_pb2.PERMISSION_READ, access_pb2.PERMISSION_WRITE, access_pb2.PERMISSION_ADMIN})
"""Permissions that are about a resource."""


class MissingAccess(StartError):
    """A method does not say what access it needs."""


@dataclass(frozen=True, slots=True)
class ResourceRule:
    """A request field that names a resource of a kind, and the permission that the method needs on it."""

    permission: access_pb2.Permission.ValueType
    field: str
    kind: str
    public_read: bool


@dataclass(frozen=True, slots=True)
class AccessRule:
    """What a method needs: a permission, and the resources that it is needed on, the main one first.

    `references` are the other fields that refer to something, each with the kind of thing. `changes` is false for methods
    that say `idempotency_level = NO_SIDE_EFFECTS`.
    """

    permission: access_pb2.Permission.ValueType
    resources: Sequence[ResourceRule]
    references: Mapping[str, str]
    public_read: bool
    changes: bool
    request: Descriptor


def rules(services: Iterable[str]) -> dict[str, AccessRule]:
    """The rule of every method of the named services, by its path `/package.Service/Method`. Raises MissingAccess."""
    pool = descriptor_pool.Default()
    return {
        f"/{service}/{method.name}": _rule(service, method)
        for service in services
        for method in pool.FindServiceByName(service).methods
    }


def _rule(service: str, method: MethodDescriptor) -> AccessRule:
    name = f"{service}.{method.name}"
    option = method.GetOptions().Extensions[access_pb2.access]
    if option.permission == access_pb2.PERMISSION_UNSPECIFIED:
        raise MissingAccess(f"{name} does not say what access it needs; add the option (blobhub.v1.access)")
    named = [option, *option.also] if option.permission in BOUND else list(option.also)
    resources = [_resource(name, method.input_type, item) for item in named]
    changes = method.GetOptions().idempotency_level != descriptor_pb2.MethodOptions.NO_SIDE_EFFECTS
    if changes and "request_id" not in method.input_type.fields_by_name:
        raise MissingAccess(
            f"{name} changes something and takes no request_id; or it is NO_SIDE_EFFECTS and does not say so"
        )
    return AccessRule(
        permission=option.permission,
        resources=resources,
        references=_references(method.input_type),
        public_read=option.public_read,
        changes=changes,
        request=method.input_type,
    )


def _references(request: Descriptor) -> dict[str, str]:
    kinds = {field.name: field.GetOptions().Extensions[access_pb2.reference] for field in request.fields}
    return {field: kind for field, kind in kinds.items() if kind}


def _resource(name: str, request: Descriptor, option: access_pb2.AccessRule) -> ResourceRule:
    field = request.fields_by_name.get(option.field)
    sound = field is not None and field.type == field.TYPE_STRING and not field.is_repeated
    if not sound or not option.resource or option.permission not in BOUND:
        raise MissingAccess(f"{name} names no resource: its access option needs a string field and a resource")
    if option.public_read and option.permission != access_pb2.PERMISSION_READ:
        raise MissingAccess(f"{name} lets everybody do more than read: public_read goes with PERMISSION_READ")
    return ResourceRule(
        permission=option.permission, field=option.field, kind=option.resource, public_read=option.public_read
    )


def check_resources(methods: Mapping[str, AccessRule], known: Container[str], references: Container[str]) -> None:
    """Raise MissingAccess when a rule names a kind of resource that has no locator, or a kind of reference that is none."""
    for path, rule in methods.items():
        for field, kind in rule.references.items():
            if kind not in references:
                raise MissingAccess(f"{path}: `{field}` says that it refers to a {kind}, which is no kind of reference")
        for resource in rule.resources:
            if resource.kind not in known:
                raise MissingAccess(f"{path} asks for access on a {resource.kind}, which no blob type brings")
