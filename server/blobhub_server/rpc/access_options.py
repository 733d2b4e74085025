"""The `blobhub.v1.access` option of every method. A method without it stops the server from starting.

Protos that are not ours have no such option. A table beside them says the same, and is checked at the start in the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

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
    """A request field that names a resource of a kind, and the permission that the method needs on it.

    `compose` makes the reference of a request in which no one field has all of it. With `worker` a worker's key of the queue
    that is named suffices.
    """

    permission: access_pb2.Permission.ValueType
    field: str
    kind: str
    public_read: bool
    compose: Callable[[Any], str] | None = None
    worker: bool = False

    def reference(self, request: Any) -> str:
        """What a request says of the resource."""
        text: str = getattr(request, self.field) if self.compose is None else self.compose(request)
        return text


@dataclass(frozen=True, slots=True)
class MethodAccess:
    """What a method needs whose proto is not ours. It changes nothing.

    `resource` and `field` are those of the access option. `compose` makes the reference of a request in which the field has
    not all of it.
    """

    permission: access_pb2.Permission.ValueType
    resource: str = ""
    field: str = ""
    public_read: bool = False
    compose: Callable[[Any], str] | None = None


@dataclass(frozen=True, slots=True)
class AccessRule:
    """What a method needs: a permission, and the resources that it is needed on, the main one first.

    `references` are the other fields that refer to something, each with the kind of thing. `changes` is false for methods
    that say `idempotency_level = NO_SIDE_EFFECTS`, and for the traffic of workers, which is not remembered.
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


def table_rules(service: str, table: Mapping[str, MethodAccess]) -> dict[str, AccessRule]:
    """The same for a service whose methods have their access in a table, by name. Raises MissingAccess."""
    methods = descriptor_pool.Default().FindServiceByName(service).methods_by_name
    if differing := sorted(set(table) ^ set(methods)):
        raise MissingAccess(f"the access table of {service} and its methods differ: {', '.join(differing)}")
    return {f"/{service}/{name}": _table_rule(f"{service}.{name}", methods[name], access) for name, access in table.items()}


def _table_rule(name: str, method: MethodDescriptor, access: MethodAccess) -> AccessRule:
    resources = []
    if access.permission in BOUND:
        option = access_pb2.AccessRule(
            permission=access.permission,
            field=access.field,
            resource=access.resource,
            public_read=access.public_read,
        )
        resources.append(replace(_resource(name, method.input_type, option), compose=access.compose))
    elif access.permission == access_pb2.PERMISSION_UNSPECIFIED or access.field or access.resource:
        raise MissingAccess(f"{name} does not say what access it needs, or on a resource that its permission is not about")
    return AccessRule(
        permission=access.permission,
        resources=resources,
        references={},
        public_read=access.public_read,
        changes=False,
        request=method.input_type,
    )


def _rule(service: str, method: MethodDescriptor) -> AccessRule:
    name = f"{service}.{method.name}"
    option = method.GetOptions().Extensions[access_pb2.access]
    if option.permission == access_pb2.PERMISSION_UNSPECIFIED:
        raise MissingAccess(f"{name} does not say what access it needs; add the option (blobhub.v1.access)")
    named = [option, *option.also] if option.permission in BOUND else list(option.also)
    resources = [_resource(name, method.input_type, item) for item in named]
    changes = method.GetOptions().idempotency_level != descriptor_pb2.MethodOptions.NO_SIDE_EFFECTS
    if option.task_traffic and (not changes or "request_id" in method.input_type.fields_by_name):
        raise MissingAccess(f"{name} is traffic of workers: that changes something, and takes no request_id")
    if changes and not option.task_traffic and "request_id" not in method.input_type.fields_by_name:
        raise MissingAccess(
            f"{name} changes something and takes no request_id; or it is NO_SIDE_EFFECTS and does not say so"
        )
    return AccessRule(
        permission=option.permission,
        resources=resources,
        references=_references(method.input_type),
        public_read=option.public_read,
        changes=changes and not option.task_traffic,
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
        permission=option.permission,
        field=option.field,
        kind=option.resource,
        public_read=option.public_read,
        worker=option.worker,
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
