"""The page of the contract, `docs/contract.md`: every service and method, who may call it, what it is refused with."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from blobhub.v1 import access_pb2
from google.protobuf import descriptor_pb2
from reference import ROOT, File, built_in, files

PAGE = ROOT / "docs" / "contract.md"
SERVER = ROOT / "server" / "blobhub_server"

HEAD = """# The contract

Made by `make generate` from [protos/blobhub/v1](../protos/blobhub/v1); do not edit. The protos are the specification,
and the words here are those of their comments. This page is what a caller looks up: what each method is for, who may
call it, and what it is refused with. [access.md](access.md) says what roles are and how they add up;
[errors.md](errors.md) lists the reasons that refusals carry beside their code.

## How a call is refused

What is wrong first in this order is what the caller is told:

1. **The form of the key.** A key that cannot be one is UNAUTHENTICATED.
2. **Decoding.** Bytes that are not the method's request are INVALID_ARGUMENT.
3. **Who is calling.** A key or token that is unknown, expired or revoked is UNAUTHENTICATED.
4. **The form of the request.** Constraints of the protos that are broken are INVALID_ARGUMENT. All of them are named at
   once, each with its field and what is allowed there. Then a malformed reference is INVALID_ARGUMENT.
5. **The remembered answer.** A `request_id` that was used before gets the first answer again; with another request it is
   ALREADY_EXISTS.
6. **Access.** References are resolved, and roles are looked at.
7. **The method itself:** JSON texts, such as `value_json` and the documents of definitions, and page tokens, which belong
   to what is listed; states, limits, etags, and whatever else its list of refusals names.

What is absent and what is invisible are one answer to one caller, in the same words:

* **UNAUTHENTICATED** to a caller without a key, for whatever is not public.
* **NOT_FOUND** to a caller who may read what the thing would be in.
* **PERMISSION_DENIED** to every other caller. It is also the answer where the thing is visible and a stronger role is
  needed; then it says which.

When the server, or what it stands on, is in trouble, every method may be answered UNAVAILABLE, RESOURCE_EXHAUSTED or
INTERNAL. A call with a `request_id` is safe to repeat with the same one after UNAVAILABLE or a timeout.
"""

KINDS = {
    (False, False): "one request, one answer",
    (False, True): "one request, a stream of answers",
    (True, False): "a stream of requests, one answer",
    (True, True): "a stream of requests, a stream of answers",
}
"""By whether the client streams, and whether the server does."""

CALLERS = {
    access_pb2.PERMISSION_ANYONE: "anybody, with or without a key",
    access_pb2.PERMISSION_CALLER: "every caller with a valid key or token",
    access_pb2.PERMISSION_USER: "users, by a token or an unconfined personal key; not keys of organizations or blobs",
    access_pb2.PERMISSION_ADMINISTRATOR: "administrators of the server, with all of their roles",
}
"""Who may call a method that names no resource."""

RESOURCES = {
    "organization_or_blob": "the organization or blob that `{field}` names",
    "blob_or_revision": "the blob or revision that `{field}` names",
    "organization_blob_or_user": "the organization, blob or user that `{field}` names",
    "organization_blob_or_server": "the organization or blob that `{field}` names, or on the whole server",
    "api_key": "what the API key `{field}` belongs to",
    "credential": "what the credential `{field}` belongs to",
}
"""Kinds of resource whose name is not that of a thing."""


@dataclass(frozen=True)
class Method:
    """A method, with the names of its request's fields and the two parts of its comment."""

    proto: descriptor_pb2.MethodDescriptorProto
    fields: frozenset[str]
    purpose: str
    errors: list[tuple[str, str]]


def page(image: Path) -> str:
    """The page, as it should be."""
    own = list(files(image))
    fields = {
        f".{file.proto.package}.{message.name}": frozenset(field.name for field in message.field)
        for file in own
        for message in file.proto.message_type
    }
    text = HEAD
    for title, slice_ in _slices():
        text += f"\n## {title}\n"
        for file in sorted(own, key=lambda file: file.proto.name):
            if (SERVER / slice_ / "services" / f"{Path(file.proto.name).stem}.py").exists():
                text += "".join(_service(file, number, fields) for number in range(len(file.proto.service)))
    return text


def _slices() -> Iterator[tuple[str, str]]:
    """The parts of the server that have services, each with its title and its folder; a noun has one name at every level."""
    yield "The platform", "platform"
    for item in built_in():
        yield f"`{item.type.name}`", type(item.type).__module__.split(".")[1]


def _service(file: File, number: int, fields: Mapping[str, frozenset[str]]) -> str:
    service = file.proto.service[number]
    name = Path(file.proto.name).name
    text = f"\n### {service.name}\n\n{_plain(file.comments[6, number])} ([{name}](../protos/{file.proto.name}))\n"
    for place, proto in enumerate(service.method):
        comment = file.comments[6, number, 2, place]
        what, _, errors = comment.partition("Errors:")
        method = Method(proto=proto, fields=fields[proto.input_type], purpose=_first_sentence(what), errors=_errors(errors))
        text += _method(method)
    return text


def _method(method: Method) -> str:
    refusals = "".join(f"  * {code}: {cause}\n" for code, cause in method.errors)
    return (
        f"\n#### {method.proto.name}\n\n{method.purpose}\n\n"
        f"* Kind: {KINDS[method.proto.client_streaming, method.proto.server_streaming]}; {_effect(method)}\n"
        f"* Who may call: {_who(method.proto.options.Extensions[access_pb2.access])}\n"
        f"* Refused with:\n{refusals}"
    )


def _effect(method: Method) -> str:
    if method.proto.options.idempotency_level == descriptor_pb2.MethodOptions.NO_SIDE_EFFECTS:
        return "changes nothing (`NO_SIDE_EFFECTS`)"
    if method.proto.options.Extensions[access_pb2.access].task_traffic:
        return "work on tasks: their lease makes it safe to repeat, and it is not in the audit log"
    return "changes something" + (", takes a `request_id`" if "request_id" in method.fields else "")


def _who(rule: access_pb2.AccessRule) -> str:
    """Who may call, in words."""
    said = CALLERS[rule.permission] if rule.permission in CALLERS else f"those with {_needed(rule)}"
    return said + "".join(f"; they also need {_needed(other)}" for other in rule.also)


def _needed(rule: access_pb2.AccessRule) -> str:
    role = access_pb2.Permission.Name(rule.permission).removeprefix("PERMISSION_").lower()
    resource = RESOURCES.get(rule.resource, f"the {rule.resource.replace('_', ' ')} that `{{field}}` names")
    public = ", or anybody where that is public" if rule.public_read else ""
    return f"`{role}` on {resource.format(field=rule.field)}{public}"


def _errors(text: str) -> list[tuple[str, str]]:
    """The codes of a list of errors, each with its causes."""
    items = re.split(r"^ ?\* ", text, flags=re.MULTILINE)[1:]
    return [(code, _plain(cause)) for code, _, cause in (item.partition(":") for item in items)]


def _first_sentence(text: str) -> str:
    plain = _plain(text)
    found = re.match(r"(.+?[.])(?= [A-Z`]|$)", plain)
    return found[1] if found else plain


def _plain(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()
