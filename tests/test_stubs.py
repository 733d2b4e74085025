"""The published stubs load on protobuf 6.33 and on protobuf 7: many users' other libraries pin one or the other."""

from __future__ import annotations

import subprocess
import sys
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
