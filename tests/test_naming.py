"""The contract keeps its rules of naming, and each rule finds what breaks it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool
from methods import IMAGE
from naming import EXAMPLES, Contract, Rule

PACKAGES = ("blobhub.v1", "stranger.notes.v1")


def contract_of(image: descriptor_pb2.FileDescriptorSet, *packages: str) -> Contract:
    """The files of packages in an image, in a pool of their own but with our options."""
    pool = descriptor_pool.DescriptorPool()
    for file in image.file:
        pool.Add(file)
    return Contract(files=tuple(file for file in image.file if file.package in packages), pool=pool)


def read_image() -> descriptor_pb2.FileDescriptorSet:
    return descriptor_pb2.FileDescriptorSet.FromString(IMAGE.read_bytes())


@pytest.fixture(scope="module")
def contract() -> Contract:
    return contract_of(read_image(), *PACKAGES)


@pytest.mark.parametrize("rule", EXAMPLES, ids=lambda rule: rule.__name__)
def test_the_contract_keeps_the_rule(contract: Contract, rule: Rule) -> None:
    assert list(rule(contract)) == []


def completed(example: str) -> str:
    """An example as a file of protos: what asks gets an answer and a service."""
    asked = re.findall(r"message (\w+)Request\b", example)
    answers = [f"message {name}Response {{}}" for name in asked if f"message {name}Response" not in example]
    calls = "".join(f"rpc {name}({name}Request) returns ({name}Response);" for name in asked)
    service = f"service Things {{ {calls} }}" if asked and "service" not in example else ""
    head = 'syntax = "proto3"; package blobhub.v1; import "blobhub/v1/access.proto";'
    return "\n".join([head, example, *answers, service])


@pytest.mark.parametrize(("rule", "example"), EXAMPLES.items(), ids=lambda item: getattr(item, "__name__", ""))
def test_the_rule_finds_what_breaks_it(rule: Rule, example: str, tmp_path: Path) -> None:
    image = read_image()
    kept = descriptor_pb2.FileDescriptorSet(file=[file for file in image.file if file.package not in PACKAGES])
    kept.file.extend(file for file in image.file if file.name.endswith(("v1/access.proto", "v1/alias.proto")))
    (tmp_path / "others.binpb").write_bytes(kept.SerializeToString())
    (tmp_path / "example.proto").write_text(completed(example))
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "grpc_tools.protoc",
        "-I.",
        "--descriptor_set_in=others.binpb",
        "-oout.binpb",
    ]
    done = subprocess.run(
        [*command, "--include_imports", "--include_source_info", "example.proto"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    made = descriptor_pb2.FileDescriptorSet.FromString((tmp_path / "out.binpb").read_bytes())
    broken = contract_of(made, "blobhub.v1")
    own = Contract(files=tuple(file for file in broken.files if file.name == "example.proto"), pool=broken.pool)
    assert list(rule(own)) != []
