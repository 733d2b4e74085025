"""The contract for languages other than Python: one image without what only the server reads, and the stubs made of it.

Access options and constraints stay out, and so does the import of `buf/validate/validate.proto`: a client that only calls
needs no library for them. `buf generate` runs the plugins of a language, which its own manifest pins.
"""

from __future__ import annotations

import filecmp
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet, SourceCodeInfo
from google.protobuf.message import Message
from google.rpc import error_details_pb2

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / ".build"
BUF = Path(sys.executable).parent / "buf"
PACKAGE = ".blobhub.v1"
OPTION_TYPES = {f"{PACKAGE}.AccessRule", f"{PACKAGE}.Permission"}
"""Types that nothing but the `access` option has."""

MESSAGES, ENUMS = 4, 5
DEPENDENCIES, EXTENSIONS = 3, 7
"""Numbers of fields of a FileDescriptorProto, as paths of source info have them."""


def protoset(image: FileDescriptorSet, sources: Sequence[str]) -> FileDescriptorSet:
    """The contract and what it imports, as it is."""
    return _with_imports(image, set(sources))


def stripped(image: FileDescriptorSet, sources: Sequence[str]) -> FileDescriptorSet:
    """The contract and what it still imports, without options that are not protobuf's own.

    A file that declared nothing but options is left out.
    """
    made = FileDescriptorSet()
    made.CopyFrom(image)
    own = [file for file in made.file if file.name in set(sources)]
    for file in own:
        _strip(file)
    left = {file.name for file in own if file.message_type or file.enum_type or file.service}
    defined = {name: file.name for file in made.file for name in _defined(file)}
    for file in own:
        needed = {defined[name] for name in _referred(file)}
        file.dependency[:] = [name for name in file.dependency if name in needed]
    return _with_imports(made, left)


def _with_imports(image: FileDescriptorSet, names: set[str]) -> FileDescriptorSet:
    """Some files of an image and what they import. A file comes after its imports, as in the image."""
    wanted = set(names)
    for file in reversed(image.file):
        if file.name in wanted:
            wanted.update(file.dependency)
    return FileDescriptorSet(file=[file for file in image.file if file.name in wanted])


def _strip(file: FileDescriptorProto) -> None:
    """Remove custom options, what declares them, and source info of what is removed."""
    places = {
        (MESSAGES, index): name for index, name in enumerate(f"{PACKAGE}.{each.name}" for each in file.message_type)
    } | {(ENUMS, index): name for index, name in enumerate(f"{PACKAGE}.{each.name}" for each in file.enum_type)}
    moved: dict[tuple[int, int], int] = {}
    for number in (MESSAGES, ENUMS):
        kept = [place for place, name in places.items() if place[0] == number and name not in OPTION_TYPES]
        moved |= {place: index for index, place in enumerate(sorted(kept))}
    for declared in (file.message_type, file.enum_type):
        for one in [each for each in declared if f"{PACKAGE}.{each.name}" in OPTION_TYPES]:
            declared.remove(one)  # type: ignore[arg-type]  # a list of messages or of enums
    del file.extension[:]
    _clear_options(file)
    places_left = [left for place in file.source_code_info.location if (left := _moved(place, moved))]
    del file.source_code_info.location[:]
    file.source_code_info.location.extend(places_left)


def _moved(place: SourceCodeInfo.Location, moved: dict[tuple[int, int], int]) -> SourceCodeInfo.Location | None:
    """A comment's place, where its subject is now; None where that is gone, and for places without a comment."""
    if not (place.leading_comments or place.trailing_comments or place.leading_detached_comments):
        return None
    path = list(place.path)
    if path and path[0] in (DEPENDENCIES, EXTENSIONS):
        return None
    if len(path) > 1 and path[0] in (MESSAGES, ENUMS):
        index = moved.get((path[0], path[1]))
        if index is None:
            return None
        path[1] = index
    made = SourceCodeInfo.Location()
    made.CopyFrom(place)
    made.path[:] = path
    return made


def _clear_options(message: Message) -> None:
    """Remove custom options of a descriptor and of all in it, whether this process knows them or not."""
    for field, value in message.ListFields():
        if field.name == "options":
            for option, _ in value.ListFields():
                if option.is_extension:
                    value.ClearExtension(option)
            value.DiscardUnknownFields()
            if not value.ListFields():
                message.ClearField("options")
        elif field.message_type and field.name != "source_code_info":
            for one in value if field.is_repeated else [value]:
                _clear_options(one)


def _defined(file: FileDescriptorProto) -> Iterator[str]:
    """Full names of the messages and enums of a file, nested ones too."""

    def within(prefix: str, message: Message) -> Iterator[str]:
        for name in ("message_type", "nested_type", "enum_type"):
            for one in getattr(message, name, ()):
                full = f"{prefix}.{one.name}"
                yield full
                yield from within(full, one)

    return within(f".{file.package}", file)


def _referred(message: Message) -> Iterator[str]:
    """Full names of the types that a descriptor refers to."""
    for field, value in message.ListFields():
        if field.name in ("type_name", "input_type", "output_type", "extendee"):
            yield value
        elif field.message_type and field.name not in ("source_code_info", "options"):
            for one in value if field.is_repeated else [value]:
                yield from _referred(one)


@dataclass(frozen=True)
class Language:
    """A language with generated stubs of its own.

    `tool` is what has to be installed, `folder` where its client is, `digest` the generated file that records the digest of
    the image, `generate` writes all files that `patterns` match.
    """

    name: str
    tool: str
    folder: Path
    digest: str
    patterns: tuple[str, ...]
    generate: Callable[[Path, str, Path], None]

    def generated(self, folder: Path) -> set[Path]:
        """The generated files in a folder, relative to it."""
        return {path.relative_to(folder) for pattern in self.patterns for path in folder.rglob(pattern)}

    def write(self, image: Path, digest: str) -> None:
        """Generate the stubs anew; what is no longer generated goes."""
        with tempfile.TemporaryDirectory(dir=BUILD) as made:
            self.generate(image, digest, Path(made))
            fresh = self.generated(Path(made))
            for name in self.generated(self.folder) - fresh:
                (self.folder / name).unlink()
            for name in fresh:
                (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(Path(made) / name, self.folder / name)

    def differences(self, image: Path, digest: str) -> list[str]:
        """Names of generated files that are missing, stale or left over in the tree."""
        with tempfile.TemporaryDirectory(dir=BUILD) as made:
            self.generate(image, digest, Path(made))
            fresh, kept = self.generated(Path(made)), self.generated(self.folder)
            same = {name for name in fresh & kept if filecmp.cmp(Path(made) / name, self.folder / name, shallow=False)}
        return sorted(str((self.folder / name).relative_to(ROOT)) for name in (fresh | kept) - same)

    def recorded(self) -> str:
        """The digest of the image that the stubs in the tree were generated from."""
        path = self.folder / self.digest
        found = re.search(r'Digest = "([0-9a-f]{64})"', path.read_text()) if path.exists() else None
        return found[1] if found else ""


class Unavailable(Exception):
    """The stubs of a language cannot be generated on this machine."""


def generate_go(image: Path, digest: str, out: Path) -> None:
    """Write the stubs of Go, and the file that puts all services together. Raises Unavailable."""
    folder = ROOT / "clients" / "go"
    plugins = ["google.golang.org/protobuf/cmd/protoc-gen-go", "google.golang.org/grpc/cmd/protoc-gen-go-grpc"]
    _run(["go", "install", *plugins], folder, GOBIN=str(BUILD / "bin"), GOWORK="off")
    template = folder / "buf.gen.yaml"
    _run([str(BUF), "generate", str(image), "--template", str(template), "--path", "blobhub", "--output", str(out)], ROOT)
    names = sorted(
        service.name for file in FileDescriptorSet.FromString(image.read_bytes()).file for service in file.service
    )
    (out / "services.pb.go").write_text(_go_services(names, digest))


def _go_services(names: Sequence[str], digest: str) -> str:
    """A Go file with a struct of all clients. Its form is that of gofmt."""
    width = max(map(len, names)) + len("Client:")
    members = "\n".join(f"\tpb.{name}Client" for name in names)
    values = "\n".join(f"\t\t{f'{name}Client:'.ljust(width)} pb.New{name}Client(connection)," for name in names)
    return f"""// Code generated by tools/generate.py. DO NOT EDIT.

package blobhub

import (
\tpb "github.com/blobhub/blobhub/clients/go/blobhub/v1"
\t"google.golang.org/grpc"
)

// ContractDigest is the SHA-256 of the descriptors that the stubs were generated from.
const ContractDigest = "{digest}"

// Services are the clients of all services. No two have a method of the same name.
type Services struct {{
{members}
}}

// NewServices makes the clients of all services over a connection.
func NewServices(connection grpc.ClientConnInterface) Services {{
\treturn Services{{
{values}
\t}}
}}
"""


def generate_typescript(image: Path, digest: str, out: Path) -> None:
    """Write the stubs of TypeScript and of what errors carry, and the file that names all services. Raises Unavailable."""
    folder = ROOT / "clients" / "typescript"
    _install_node_packages(folder)
    files = FileDescriptorSet.FromString(image.read_bytes())
    files.file.add().ParseFromString(error_details_pb2.DESCRIPTOR.serialized_pb)
    whole = out / "typescript.binpb"
    whole.write_bytes(files.SerializeToString(deterministic=True))
    template = folder / "buf.gen.yaml"
    paths = ["--path", "blobhub", "--path", "google/rpc"]
    _run([str(BUF), "generate", str(whole), "--template", str(template), *paths, "--output", str(out)], ROOT)
    modules = sorted((service.name, file.name.removesuffix(".proto")) for file in files.file for service in file.service)
    (out / "services_pb.ts").write_text(_typescript_services(modules, digest))


def _install_node_packages(folder: Path) -> None:
    """Install what a lock file says, unless that was done since it was changed. Raises Unavailable."""
    lock, installed = folder / "package-lock.json", folder / "node_modules" / ".package-lock.json"
    if not installed.exists() or installed.stat().st_mtime < lock.stat().st_mtime:
        _run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], folder)
        installed.touch()


def _typescript_services(modules: Sequence[tuple[str, str]], digest: str) -> str:
    """A TypeScript file that names all services, given with their modules."""
    imports = "\n".join(f'import {{ {name} }} from "./{module}_pb.js";' for name, module in modules)
    names = "\n".join(f"  {name}," for name, _ in modules)
    clients = ",\n".join(f"    Client<typeof {name}>" for name, _ in modules)
    return f"""// Code generated by tools/generate.py. DO NOT EDIT.

import type {{ Client }} from "@connectrpc/connect";
{imports}

/** The SHA-256 of the descriptors that the stubs were generated from. */
export const contractDigest = "{digest}";

/** All services. No two have a method of the same name. */
export const services = [
{names}
] as const;

/** The methods of all services. */
export interface Services
  extends
{clients} {{}}
"""


def _run(command: list[str], folder: Path, **environment: str) -> None:
    done = subprocess.run(command, cwd=folder, env=os.environ | environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Unavailable(f"{' '.join(command[:2])} failed: {done.stderr.strip()}")


GO = Language(
    name="Go",
    tool="go",
    folder=ROOT / "clients" / "go",
    digest="services.pb.go",
    patterns=("*.pb.go",),
    generate=generate_go,
)
TYPESCRIPT = Language(
    name="TypeScript",
    tool="npm",
    folder=ROOT / "clients" / "typescript" / "src",
    digest="services_pb.ts",
    patterns=("*_pb.ts",),
    generate=generate_typescript,
)
LANGUAGES = (GO, TYPESCRIPT)


def build(image: Path, sources: Sequence[str]) -> Path:
    """Write the image that stubs of other languages are generated from, and that of Java's build; the former's path."""
    path = BUILD / "languages.binpb"
    made = stripped(FileDescriptorSet.FromString(image.read_bytes()), sources)
    path.write_bytes(made.SerializeToString(deterministic=True))
    (BUILD / "java.binpb").write_bytes(for_java(made).SerializeToString(deterministic=True))
    return path


def for_java(image: FileDescriptorSet) -> FileDescriptorSet:
    """The image with Java's options, which its build cannot add: a file for each type, in a package of ours.

    What is left for a class of the proto's own has a name that no type has: `signal.proto` has no Signal, `event.proto` has.
    """
    made = FileDescriptorSet()
    made.CopyFrom(image)
    for file in made.file:
        if f".{file.package}" == PACKAGE:
            file.options.java_multiple_files = True
            file.options.java_package = "io.github.blobhub.v1"
            file.options.java_outer_classname = f"{Path(file.name).stem.title().replace('_', '')}Proto"
    return made


def write(image: Path) -> None:
    """Generate the stubs of every language that is installed; say which were left out."""
    digest = hashlib.sha256(image.read_bytes()).hexdigest()
    for language in LANGUAGES:
        if shutil.which(language.tool) is None:
            print(f"{language.name} is not installed: its stubs were left as they are")
            continue
        try:
            language.write(image, digest)
        except Unavailable as error:
            sys.exit(str(error))


def differences(image: Path) -> list[str]:
    """Names of generated files that are not what would be generated.

    Where a language is not installed, its stubs are held to the digest that they record. With `CI=true` that is an error.
    """
    digest = hashlib.sha256(image.read_bytes()).hexdigest()
    strict, stale = os.environ.get("CI") == "true", []
    for language in LANGUAGES:
        try:
            if shutil.which(language.tool) is None:
                raise Unavailable(f"{language.name} is not installed")
            stale += language.differences(image, digest)
        except Unavailable as error:
            if strict:
                sys.exit(f"{error}; CI needs it")
            print(f"{error}; its stubs were only compared by the digest of what they were generated from")
            if language.recorded() != digest:
                stale.append(str((language.folder / language.digest).relative_to(ROOT)))
    return stale
