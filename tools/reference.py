"""The reference pages that are made from the contract and the code.

They are `docs/errors.md`, `docs/settings.md`, and the table of methods in `docs/access.md`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from blobhub.v1 import access_pb2
from blobhub.v1.error_pb2 import ErrorReason
from blobhub_server.blobtypes.registry import BlobTypes, InstalledType
from blobhub_server.config import Settings, SettingsModel, variable
from blobhub_server.errors import BlobHubError
from google.protobuf import descriptor_pb2

ROOT = Path(__file__).resolve().parent.parent
ERRORS, ACCESS, SETTINGS = (ROOT / "docs" / name for name in ("errors.md", "access.md", "settings.md"))
BEGIN, END = "<!-- methods: made by `make generate` -->", "<!-- end of methods -->"

ERRORS_HEAD = """# Errors

Made by `make generate` from [error.proto](../protos/blobhub/v1/error.proto) and the error enums of the blob types; do not
edit.

Every status but OK carries a `google.rpc.ErrorInfo` with one of these reasons and its domain. The domain is `blobhub`, or
the name of a blob type for the reasons of that type. Programs decide by the reason; the message is for people. The comment
of each method lists its errors and their causes under `Errors:`.
"""

SETTINGS_HEAD = """# Settings

Made by `make generate` from [config.py](../server/blobhub_server/config.py) and the settings of the blob types that ship
with the server; do not edit. Settings are read from the environment and nowhere else; `blobhub-server doctor` says which are
set.
"""

Comments = Mapping[tuple[int, ...], str]


@dataclass(frozen=True)
class File:
    """A proto file, and its comments by place."""

    proto: descriptor_pb2.FileDescriptorProto
    comments: Comments


def files(image: Path) -> Iterator[File]:
    """Our own files in a descriptor image."""
    for proto in descriptor_pb2.FileDescriptorSet.FromString(image.read_bytes()).file:
        if proto.package == "blobhub.v1":
            comments = {tuple(place.path): place.leading_comments for place in proto.source_code_info.location}
            yield File(proto, comments)


def errors(image: Path) -> str:
    """The page of errors: for every domain a table of its reasons."""
    domains = {ErrorReason.DESCRIPTOR.full_name: BlobHubError.domain}
    domains |= {item.type.reasons.full_name: item.type.name for item in built_in() if item.type.reasons is not None}
    by_enum = {
        f"{file.proto.package}.{enum.name}": _reasons(file, number, enum)
        for file in files(image)
        for number, enum in enumerate(file.proto.enum_type)
    }
    return ERRORS_HEAD + "".join(
        f"\n## `{domain}`\n\n| reason | code | cause, metadata, further details |\n|---|---|---|\n{by_enum[enum]}"
        for enum, domain in domains.items()
    )


def _reasons(file: File, number: int, enum: descriptor_pb2.EnumDescriptorProto) -> str:
    """A row for every value of an enum but the unspecified one, which tells the prefix of the others."""
    prefix, rows = enum.value[0].name.removesuffix("UNSPECIFIED"), []
    for place, value in enumerate(enum.value[1:], 1):
        code, _, rest = prose(file.comments[5, number, 2, place]).partition(". ")
        rows.append(f"| `{value.name.removeprefix(prefix)}` | {code} | {rest} |\n")
    return "".join(rows)


def built_in() -> list[InstalledType]:
    """The blob types that come with the server."""
    return [item for item in BlobTypes.load().all() if item.distribution.startswith("blobhub-server ")]


def settings() -> str:
    """The page of settings: a table for the server, and for each blob type that comes with it."""
    tables: list[tuple[str, type[SettingsModel]]] = [
        ("The server", Settings),
        *((f"`{item.type.name}`", item.type.settings) for item in built_in()),
    ]
    return SETTINGS_HEAD + "".join(_table(title, model) for title, model in tables if model.model_fields)


def _table(title: str, model: type[SettingsModel]) -> str:
    rows = [
        f"| `{variable(name)}` | {'unset' if field.default is None else f'`{field.default}`'} | {field.description} |\n"
        for name, field in model.model_fields.items()
    ]
    return f"\n## {title}\n\n| variable | default | what for |\n|---|---|---|\n{''.join(rows)}"


def methods(image: Path) -> str:
    """The table of methods: what each needs, on what, and whether it changes anything."""
    services = sorted((service for file in files(image) for service in file.proto.service), key=lambda item: item.name)
    rows = [_row(service.name, method) for service in services for method in service.method]
    return "".join(["| method | needs | on | changes something |\n|---|---|---|---|\n", *rows])


def _row(service: str, method: descriptor_pb2.MethodDescriptorProto) -> str:
    rule = method.options.Extensions[access_pb2.access]
    needs = access_pb2.Permission.Name(rule.permission).removeprefix("PERMISSION_").lower()
    if rule.public_read:
        needs += ", or public"
    named = ", ".join(f"`{item.field}` ({item.resource})" for item in (rule, *rule.also) if item.field)
    changes = method.options.idempotency_level != descriptor_pb2.MethodOptions.NO_SIDE_EFFECTS
    return f"| `{service}.{method.name}` | {needs} | {named or '–'} | {'yes' if changes else 'no'} |\n"


def prose(comment: str) -> str:
    """A comment in one line, as a cell of a table takes it."""
    return re.sub(r"\s+", " ", comment).strip().replace("|", "\\|")


def pages(image: Path) -> dict[Path, str]:
    """Every generated page, as it should be."""
    access = ACCESS.read_text()
    head, _, rest = access.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return {ERRORS: errors(image), SETTINGS: settings(), ACCESS: f"{head}{BEGIN}\n{methods(image)}{END}{tail}"}
