"""Build the contract's descriptor image and the Python stubs from `protos/`.

`python tools/generate.py`          writes the stubs into `clients/python`
`python tools/generate.py --check`  writes nothing; exits 1 when the stubs in the tree differ
`python tools/generate.py --image`  only (re)builds `.build/image.binpb`, which buf lints and compares

`buf/validate/validate.proto` is not copied into the tree: its descriptor comes out of the installed
protovalidate package, byte for byte, so stubs made here agree with stubs made from Buf's own registry.
"""

from __future__ import annotations

import filecmp
import subprocess
import sys
import tempfile
from pathlib import Path

from google.protobuf import descriptor_pb2, duration_pb2, field_mask_pb2, timestamp_pb2
from protovalidate._gen.buf.validate import validate_pb

ROOT = Path(__file__).resolve().parent.parent
PROTOS = ROOT / "protos"
BUILD = ROOT / ".build"
STUBS = ROOT / "clients" / "python"


def protoc(*arguments: str) -> None:
    """Run the protoc that grpcio-tools ships; its plugins are found beside this interpreter."""
    scripts = Path(sys.executable).parent
    plugins = [f"--plugin=protoc-gen-{name}={scripts / f'protoc-gen-{name}'}" for name in ("mypy", "mypy_grpc")]
    subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "grpc_tools.protoc", *plugins, *arguments],
        check=True,
        stderr=subprocess.DEVNULL if "--mypy_out" in " ".join(arguments) else None,
    )


def third_party() -> Path:
    """Write the descriptors of protos we import but do not own; return the file."""
    files = descriptor_pb2.FileDescriptorSet()
    for module in (descriptor_pb2, duration_pb2, field_mask_pb2, timestamp_pb2):
        files.file.add().ParseFromString(module.DESCRIPTOR.serialized_pb)
    files.file.add().ParseFromString(validate_pb.desc().proto.to_binary())
    path = BUILD / "third_party.binpb"
    path.write_bytes(files.SerializeToString())
    return path


def image(sources: list[str]) -> Path:
    """Compile `protos/` into one descriptor image with comments, for buf and for the generators."""
    BUILD.mkdir(exist_ok=True)
    path = BUILD / "image.binpb"
    protoc(
        f"--descriptor_set_in={third_party()}",
        f"-I{PROTOS}",
        "--include_imports",
        "--include_source_info",
        f"-o{path}",
        *sources,
    )
    return path


def stubs(descriptors: Path, sources: list[str], out: Path) -> None:
    """Generate messages, services and their types into `out`."""
    given = f"--descriptor_set_in={descriptors}"
    protoc(given, f"--python_out={out}", f"--mypy_out={out}", "buf/validate/validate.proto", *sources)
    protoc(given, f"--grpc_python_out={out}", f"--mypy_grpc_out={out}", *sources)


def differences(fresh: Path) -> list[str]:
    """Names of generated files that are missing, stale or left over in the tree."""
    made = {path.relative_to(fresh) for path in fresh.rglob("*.py*")}
    kept = {
        path.relative_to(STUBS)
        for package in ("blobhub", "buf")
        for path in (STUBS / package).rglob("*_pb2*.py*")
        if "__pycache__" not in path.parts
    }
    stale = {name for name in made & kept if not filecmp.cmp(fresh / name, STUBS / name, shallow=False)}
    return sorted(str(name) for name in stale | (made ^ kept))


def main() -> int:
    """Run the command named by the first argument; return the exit code."""
    sources = sorted(str(path.relative_to(PROTOS)) for path in PROTOS.rglob("*.proto"))
    descriptors = image(sources)
    if "--image" in sys.argv:
        return 0
    if "--check" not in sys.argv:
        stubs(descriptors, sources, STUBS)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        stubs(descriptors, sources, Path(folder))
        stale = differences(Path(folder))
    for name in stale:
        print(f"clients/python/{name}: not what `make generate` makes")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
