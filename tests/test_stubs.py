"""The published stubs load on protobuf 6.33 and on protobuf 7: many users' other libraries pin one or the other.

Their wheel carries types and descriptors with comments.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PROTOBUF_7 = ROOT / ".build" / "protobuf7"

LOAD = """
import sys
sys.path[:0] = sys.argv[2:]
import google.protobuf
assert google.protobuf.__version__.startswith(sys.argv[1]), google.protobuf.__version__
import importlib, pathlib
for path in pathlib.Path("clients/python/blobhub/v1").glob("*_pb2.py"):
    importlib.import_module(f"blobhub.v1.{path.stem}")
import blobhub_client, blobhub_client.building, blobhub_client.sync, blobhub_client.worker
from blobhub.v1 import access_pb2, blob_pb2
blob = blob_pb2.Blob(id="1", alias="pipeline", visibility=blob_pb2.VISIBILITY_PUBLIC)
assert blob_pb2.Blob.FromString(blob.SerializeToString()) == blob
method = blob_pb2.DESCRIPTOR.services_by_name["BlobService"].methods_by_name["GetBlob"]
assert method.GetOptions().Extensions[access_pb2.access].public_read
"""


@pytest.mark.parametrize(("version", "folders"), [("6.33", []), ("7.", [str(PROTOBUF_7)])])
def test_the_stubs_load(version: str, folders: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", LOAD, version, *folders], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def wheel(project: Path, folder: Path) -> zipfile.ZipFile:
    """The wheel of a project, built from a copy."""
    shutil.copytree(project, folder / "project", ignore=shutil.ignore_patterns("*.egg-info", "build", "__pycache__"))
    command = ["pip", "wheel", "--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", folder]
    done = subprocess.run([sys.executable, "-m", *command, folder / "project"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (made,) = folder.glob("*.whl")
    return zipfile.ZipFile(made)


@pytest.mark.parametrize(
    ("project", "packages"),
    [
        (
            ROOT / "clients" / "python",
            {"blobhub/v1": "blobhub/v1/blob", "buf/validate": "", "blobhub_client": "", "blobhub_cli": ""},
        ),
        (ROOT / "tests" / "stranger", {"stranger/notes/v1": "stranger/notes/v1/notes", "stranger_notes": ""}),
    ],
    ids=["ours", "a stranger's"],
)
def test_a_wheel_has_types_and_descriptors(tmp_path: Path, project: Path, packages: dict[str, str]) -> None:
    with wheel(project, tmp_path) as made:
        names = set(made.namelist())
    for package, stub in packages.items():
        assert f"{package}/py.typed" in names
        if stub:
            assert {f"{stub}_pb2.py", f"{stub}_pb2.pyi", f"{stub}_pb2_grpc.pyi", f"{package}/descriptors.binpb"} <= names
    assert "blobhub/__init__.py" not in names


USER = """
from blobhub.v1 import blob_pb2, blob_pb2_grpc
from blobhub_client import Client, sync

reveal_type(blob_pb2.Blob().alias)
reveal_type(blob_pb2_grpc.BlobServiceStub)
blob_pb2.Blob(alias=1)
blob_pb2.Blob(allias="pipeline")

async def use(hub: Client, other: sync.Client) -> None:
    answer = await hub.blobs.GetBlob(blob_pb2.GetBlobRequest(blob="acme/pipeline"))
    reveal_type(answer.blob.alias)
    print(answer.blob.allias)
    print(other.blobs.GetBlob(blob_pb2.GetBlobRequest(blob="acme/pipeline")).blob.allias)
    async for event in hub.watch_session("s"):
        print(event.kind)
"""


def test_mypy_knows_the_types_of_an_installed_wheel(tmp_path: Path) -> None:
    """In an environment of its own: what is on mypy's path needs no `py.typed`, and what is installed does."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    (packages,) = (tmp_path / "venv").glob("lib/python3*/site-packages")
    with wheel(ROOT / "clients" / "python", tmp_path) as made:
        made.extractall(packages)
    # The packages that the stubs need, but not what is installed there by links, as ours are.
    (packages / "needed.pth").write_text(str(Path(pytest.__file__).parent.parent))
    (tmp_path / "user.py").write_text(USER)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--python-executable", tmp_path / "venv" / "bin" / "python", "user.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    said = done.stdout.replace("builtins.", "")
    for line in (5, 12):
        assert f'user.py:{line}: note: Revealed type is "str"' in said, said
    assert "BlobServiceStub" in done.stdout
    errors = [("7", "arg-type"), ("8", "call-arg"), ("13", "attr-defined"), ("14", "attr-defined"), ("16", "attr-defined")]
    assert re.findall(r"user.py:(\d+): error: .*\[(.*)\]", done.stdout) == errors, done.stdout
