"""Build the contract's descriptor image, the stubs and the reference pages from `protos/`.

`python tools/generate.py`             writes stubs and descriptors into `clients`, and the pages into `docs`
`python tools/generate.py --check`     writes nothing; exits 1 when what is in the tree differs
`python tools/generate.py --image`     only (re)builds the images in `.build`, which buf lints, compares and generates from
`python tools/generate.py --protoset`  writes `dist/blobhub.protoset`, which `grpcurl -protoset` reads

Stubs of other languages than Python are written by `languages.py`, where their tools are installed.

`buf/validate/validate.proto` is not copied into the tree: its descriptor comes out of the installed
protovalidate package, byte for byte, so stubs made here agree with stubs made from Buf's own registry.
"""

from __future__ import annotations

import filecmp
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import languages
from google.protobuf import any_pb2, descriptor_pb2, duration_pb2, field_mask_pb2, timestamp_pb2
from google.rpc import status_pb2
from protovalidate._gen.buf.validate import validate_pb

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / ".build"


@dataclass(frozen=True)
class Tree:
    """Protos, and where the stubs made of them go. `extra` are protos of others whose stubs go there too.

    `services` says whether there are stubs of services, which only clients need.

    `descriptors` is where, below `out`, the descriptors with comments go, which reflection answers.
    """

    protos: Path
    out: Path
    descriptors: str
    extra: tuple[str, ...] = ()
    services: bool = True

    def sources(self) -> list[str]:
        """The tree's own proto files, by name."""
        return sorted(path.relative_to(self.protos).as_posix() for path in self.protos.rglob("*.proto"))


OURS = Tree(
    protos=ROOT / "protos",
    out=ROOT / "clients" / "python",
    descriptors="blobhub/v1/descriptors.binpb",
    extra=("buf/validate/validate.proto",),
)
STRANGERS = Tree(
    protos=ROOT / "tests" / "stranger" / "protos",
    out=ROOT / "tests" / "stranger",
    descriptors="stranger/notes/v1/descriptors.binpb",
)
INFERENCE = Tree(
    protos=ROOT / "server",
    out=ROOT / "server",
    descriptors="blobhub_server/onnx/oip/descriptors.binpb",
    services=False,
)
"""The Open Inference Protocol, whose names other distributions have too: no client's process may get it from us."""
TREES = (OURS, STRANGERS, INFERENCE)


def protoc(*arguments: str) -> None:
    """Run the protoc that grpcio-tools ships; its plugins are found beside this interpreter."""
    scripts = Path(sys.executable).parent
    plugins = [f"--plugin=protoc-gen-{name}={scripts / f'protoc-gen-{name}'}" for name in ("mypy", "mypy_grpc")]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "grpc_tools.protoc", *plugins, *arguments],
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        sys.exit(done.stderr)


def third_party() -> Path:
    """Write the descriptors of protos we import but do not own; return the file."""
    BUILD.mkdir(exist_ok=True)
    files = descriptor_pb2.FileDescriptorSet()
    for module in (any_pb2, descriptor_pb2, duration_pb2, field_mask_pb2, timestamp_pb2, status_pb2):
        files.file.add().ParseFromString(module.DESCRIPTOR.serialized_pb)
    files.file.add().ParseFromString(validate_pb.desc().proto.to_binary())
    path = BUILD / "third_party.binpb"
    path.write_bytes(files.SerializeToString())
    return path


def image() -> Path:
    """Compile all protos into one descriptor image with comments, for buf and for the generators."""
    BUILD.mkdir(exist_ok=True)
    path = BUILD / "image.binpb"
    protoc(
        f"--descriptor_set_in={third_party()}",
        *(f"-I{tree.protos}" for tree in TREES),
        "--include_imports",
        "--include_source_info",
        f"-o{path}",
        *(source for tree in TREES for source in tree.sources()),
    )
    return path


def stubs(descriptors: Path, tree: Tree, out: Path) -> None:
    """Generate messages, services and their types into `out`."""
    given, sources = f"--descriptor_set_in={descriptors}", tree.sources()
    protoc(given, f"--python_out={out}", f"--mypy_out={out}", *tree.extra, *sources)
    if tree.services:
        protoc(given, f"--grpc_python_out={out}", f"--mypy_grpc_out={out}", *sources)


def commented(descriptors: Path, tree: Tree, out: Path) -> None:
    """Write the descriptors of a tree's own protos with their comments, and nothing else of the source info."""
    sources = set(tree.sources())
    made = descriptor_pb2.FileDescriptorSet()
    for file in descriptor_pb2.FileDescriptorSet.FromString(descriptors.read_bytes()).file:
        if file.name in sources:
            places = [place for place in file.source_code_info.location if _has_comment(place)]
            file.ClearField("source_code_info")
            file.source_code_info.location.extend(places)
            made.file.append(file)
    (out / tree.descriptors).write_bytes(made.SerializeToString(deterministic=True))


def _has_comment(place: descriptor_pb2.SourceCodeInfo.Location) -> bool:
    return bool(place.leading_comments or place.trailing_comments or place.leading_detached_comments)


def differences(fresh: Path, tree: Tree) -> list[str]:
    """Names of generated files that are missing, stale or left over in the tree."""
    made, kept = _generated(fresh), _generated(tree.out)
    stale = {name for name in made & kept if not filecmp.cmp(fresh / name, tree.out / name, shallow=False)}
    return sorted(str((tree.out / name).relative_to(ROOT)) for name in stale | (made ^ kept))


def _generated(folder: Path) -> set[Path]:
    """The generated files below a folder, relative to it."""
    found = (path for pattern in ("*_pb2*.py*", "*.binpb") for path in folder.rglob(pattern))
    return {path.relative_to(folder) for path in found if "__pycache__" not in path.parts}


def _pages(descriptors: Path) -> dict[Path, str]:
    """The reference pages, by path. What makes them reads our own options, which the stubs bring."""
    import contract  # noqa: PLC0415  after the stubs have been written
    import definition_schema  # noqa: PLC0415
    import definitions_page  # noqa: PLC0415
    import reference  # noqa: PLC0415

    made = {contract.PAGE: contract.page(descriptors), definition_schema.PAGE: definition_schema.page()}
    return reference.pages(descriptors) | made | {definitions_page.PAGE: definitions_page.page(descriptors)}


def protoset(descriptors: Path) -> Path:
    """Write the contract for clients that have no reflection; its path."""
    path = ROOT / "dist" / "blobhub.protoset"
    path.parent.mkdir(exist_ok=True)
    made = languages.protoset(descriptor_pb2.FileDescriptorSet.FromString(descriptors.read_bytes()), OURS.sources())
    path.write_bytes(made.SerializeToString(deterministic=True))
    return path


def _write(descriptors: Path, tree: Tree, out: Path) -> None:
    """Write everything that a tree's distribution ships of its protos."""
    stubs(descriptors, tree, out)
    commented(descriptors, tree, out)


def main() -> int:
    """Run the command named by the first argument; return the exit code."""
    descriptors = image()
    others = languages.build(descriptors, OURS.sources())
    if "--image" in sys.argv:
        return 0
    if "--protoset" in sys.argv:
        print(protoset(descriptors))
        return 0
    stale: list[str] = []
    for tree in TREES:
        if "--check" not in sys.argv:
            _write(descriptors, tree, tree.out)
            continue
        with tempfile.TemporaryDirectory() as folder:
            _write(descriptors, tree, Path(folder))
            stale += differences(Path(folder), tree)
    if "--check" in sys.argv:
        stale += languages.differences(others)
    else:
        languages.write(others)
    for path, text in _pages(descriptors).items():
        if "--check" not in sys.argv:
            path.write_text(text)
        elif not path.exists() or path.read_text() != text:
            stale.append(str(path.relative_to(ROOT)))
    for name in stale:
        print(f"{name}: not what `make generate` makes")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
