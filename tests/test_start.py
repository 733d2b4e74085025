"""What the contract lacks stops the start, by name: access options and constraints."""

from __future__ import annotations

from typing import Any

import pytest
from blobhub.v1 import access_pb2
from blobhub_server import logs
from blobhub_server.config import Settings
from blobhub_server.rpc.access_options import MissingAccess, check_resources, rules
from blobhub_server.rpc.validation import BrokenConstraint, compile_constraints
from buf.validate import validate_pb2
from google.protobuf import descriptor_pb2, descriptor_pool

String, Message = descriptor_pb2.FieldDescriptorProto.TYPE_STRING, descriptor_pb2.FieldDescriptorProto.TYPE_MESSAGE
ONE, REPEATED = descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL, descriptor_pb2.FieldDescriptorProto.LABEL_REPEATED


def declare(
    package: str,
    access: access_pb2.AccessRule | None = None,
    cel: str | None = None,
    *,
    request_id: bool = True,
    refers_to: str = "",
) -> str:
    """Add a service with one method to the pool; return its full name."""
    file = descriptor_pb2.FileDescriptorProto(name=f"{package}.proto", package=package, syntax="proto3")
    file.dependency.extend(["blobhub/v1/access.proto", "buf/validate/validate.proto"])
    inner = file.message_type.add(name="Inner")
    text = inner.field.add(name="text", number=1, type=String, label=ONE)
    if cel is not None:
        text.options.Extensions[validate_pb2.field].cel.add(id="rule", message="is wrong", expression=cel)
    request = file.message_type.add(name="Request")
    request.field.add(name="blob", number=1, type=String, label=ONE)
    request.field.add(name="blobs", number=2, type=String, label=REPEATED)
    request.field.add(name="inner", number=3, type=Message, label=REPEATED, type_name=f".{package}.Inner")
    if request_id:
        request.field.add(name="request_id", number=4, type=String, label=ONE)
    if refers_to:
        near = request.field.add(name="near", number=5, type=String, label=ONE)
        near.options.Extensions[access_pb2.reference] = refers_to
    service = file.service.add(name="Service")
    method = service.method.add(name="Do", input_type=f".{package}.Request", output_type=f".{package}.Request")
    if access is not None:
        method.options.Extensions[access_pb2.access].CopyFrom(access)
    descriptor_pool.Default().AddSerializedFile(file.SerializeToString())
    return f"{package}.Service"


def rule(**fields: Any) -> access_pb2.AccessRule:
    return access_pb2.AccessRule(permission=access_pb2.PERMISSION_READ, **fields)


@pytest.mark.parametrize(
    ("package", "access"),
    [
        ("access.none", None),
        ("access.unspecified", access_pb2.AccessRule(field="blob", resource="blob")),
        ("access.absent", rule(field="nothing", resource="blob")),
        ("access.repeated", rule(field="blobs", resource="blob")),
        ("access.message", rule(field="inner", resource="blob")),
        ("access.nameless", rule(field="blob")),
        (
            "access.public",
            access_pb2.AccessRule(permission=access_pb2.PERMISSION_WRITE, field="blob", resource="blob", public_read=True),
        ),
    ],
)
def test_a_method_without_a_usable_access_rule_stops_the_start_by_name(package: str, access) -> None:
    service = declare(package, access)
    with pytest.raises(MissingAccess, match=f"{package}.Service.Do"):
        rules([service])


def test_a_kind_of_resource_that_nobody_resolves_stops_the_start() -> None:
    access = rules([declare("access.stranger", rule(field="blob", resource="galaxy"))])
    check_resources(access, {"galaxy"}, ())
    with pytest.raises(MissingAccess, match="galaxy"):
        check_resources(access, {"blob"}, ())


def test_a_kind_of_reference_that_there_is_not_stops_the_start() -> None:
    access = rules([declare("reference.stranger", rule(field="blob", resource="blob"), refers_to="galaxy")])
    check_resources(access, {"blob"}, {"galaxy"})
    with pytest.raises(MissingAccess, match="`near` says that it refers to a galaxy"):
        check_resources(access, {"blob"}, {"blob"})


def test_a_constraint_that_does_not_compile_stops_the_start_even_deep_inside() -> None:
    (sound,) = rules([declare("constraint.sound", rule(field="blob", resource="blob"), cel="this != ''")]).values()
    compile_constraints([sound.request])
    (broken,) = rules([declare("constraint.broken", rule(field="blob", resource="blob"), cel="this.nope(")]).values()
    with pytest.raises(BrokenConstraint, match=r"constraint\.broken\.Inner"):
        compile_constraints([broken.request])


def test_a_method_that_changes_something_and_cannot_be_repeated_safely_stops_the_start() -> None:
    service = declare("access.unrepeatable", rule(field="blob", resource="blob"), request_id=False)
    with pytest.raises(MissingAccess, match=r"access\.unrepeatable\.Service\.Do.*request_id"):
        rules([service])


@pytest.mark.parametrize("also", [rule(field="nothing", resource="blob"), access_pb2.AccessRule(field="blob")])
def test_a_further_resource_must_be_usable_as_well(also) -> None:
    package = f"access.also{len(also.resource)}"
    with pytest.raises(MissingAccess, match=f"{package}.Service.Do"):
        rules([declare(package, rule(field="blob", resource="blob", also=[also]))])


def test_callers_without_a_resource_need_no_field() -> None:
    (found,) = rules([declare("access.caller", access_pb2.AccessRule(permission=access_pb2.PERMISSION_CALLER))]).values()
    assert found.permission == access_pb2.PERMISSION_CALLER


def test_an_unknown_log_level_stops_the_start() -> None:
    with pytest.raises(logs.UnknownLogLevel, match="BLOBHUB_LOG_LEVEL"):
        logs.set_up(Settings(log_level="loud"))
