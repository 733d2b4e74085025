"""Stubs of other languages than Python are made of the contract without what only the server reads."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from google.protobuf import descriptor_pool
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet, MethodOptions

ROOT = Path(__file__).resolve().parent.parent
SOURCES = [path.relative_to(ROOT / "protos").as_posix() for path in (ROOT / "protos").rglob("*.proto")]
WHOLE = FileDescriptorSet.FromString((ROOT / ".build" / "image.binpb").read_bytes())

pytestmark = pytest.mark.either_database


@pytest.fixture(name="languages", scope="module")
def languages_fixture() -> Iterator[ModuleType]:
    """The tool, which is no module of ours to import."""
    spec = importlib.util.spec_from_file_location("languages", ROOT / "tools" / "languages.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["languages"] = module  # Its dataclasses look themselves up.
    spec.loader.exec_module(module)
    yield module
    del sys.modules["languages"]


def of_contract(files: FileDescriptorSet) -> list[FileDescriptorProto]:
    return [file for file in files.file if file.name in SOURCES]


def loaded(files: FileDescriptorSet) -> descriptor_pool.DescriptorPool:
    """A pool with all of them. Fails where one refers to what is not there."""
    pool = descriptor_pool.DescriptorPool()
    for file in files.file:
        pool.Add(file)
    for file in files.file:
        pool.FindFileByName(file.name)
    return pool


def comments(files: FileDescriptorSet) -> dict[str, str]:
    """What is said of each message, enum, service, method, field and value."""
    said = {}
    for file in of_contract(files):
        for place in file.source_code_info.location:
            here, names = file, [file.package]
            if len(place.path) % 2 or not place.leading_comments:  # A file's own, which are not by a name.
                continue
            for number, index in zip(place.path[::2], place.path[1::2], strict=True):
                here = getattr(here, here.DESCRIPTOR.fields_by_number[number].name)[index]
                names.append(here.name)
            said[".".join(names)] = place.leading_comments
    return said


def test_stubs_of_other_languages_need_no_validation_and_have_no_access_options(languages: ModuleType) -> None:
    made = languages.stripped(WHOLE, SOURCES)
    pool = loaded(made)
    assert not [file.name for file in made.file if file.name.startswith("buf/")]
    for options in (b"buf/validate", b"buf.validate", b"AccessRule"):
        assert options not in b"".join(file.SerializeToString() for file in of_contract(made) if _without_comments(file))
    method = pool.FindMethodByName("blobhub.v1.BlobService.GetBlob")
    assert method.GetOptions() == MethodOptions(idempotency_level=MethodOptions.NO_SIDE_EFFECTS)


def _without_comments(file: FileDescriptorProto) -> bool:
    file.ClearField("source_code_info")
    return True


def test_nothing_else_is_missing_in_them(languages: ModuleType) -> None:
    made, before = languages.stripped(WHOLE, SOURCES), comments(WHOLE)
    left_out = before.keys() - comments(made).keys()
    assert comments(made).items() <= before.items()
    assert {name.split(".")[2] for name in left_out} == {
        "AccessRule", "Permission", "access", "audited", "reference", "alias", "alias_or_id", "alias_or_within", "within",
        "printable",
    }  # fmt: skip
    methods = {
        f"{service.name}.{method.name}"
        for file in of_contract(WHOLE)
        for service in file.service
        for method in service.method
    }
    assert methods == {
        f"{service.name}.{method.name}"
        for file in of_contract(made)
        for service in file.service
        for method in service.method
    }


def test_a_protoset_has_all_that_the_contract_imports(languages: ModuleType) -> None:
    made = languages.protoset(WHOLE, SOURCES)
    pool = loaded(made)
    assert {*SOURCES, "buf/validate/validate.proto"} <= {file.name for file in made.file}
    assert not [file.name for file in made.file if file.name.startswith("stranger/")]
    assert pool.FindExtensionByName("blobhub.v1.access").number == 50510


def test_where_a_language_is_missing_its_stubs_are_held_to_the_digest_that_they_record(
    languages: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    image = tmp_path / "image.binpb"
    image.write_bytes(languages.stripped(WHOLE, SOURCES).SerializeToString(deterministic=True))
    monkeypatch.setattr(languages.shutil, "which", lambda _: None)
    monkeypatch.delenv("CI", raising=False)
    assert languages.differences(image) == []
    assert "Go is not installed" in capsys.readouterr().out
    image.write_bytes(image.read_bytes() + b"another contract")
    assert languages.differences(image) == ["clients/go/services.pb.go", "clients/typescript/src/services_pb.ts"]
    monkeypatch.setenv("CI", "true")
    with pytest.raises(SystemExit, match="Go is not installed; CI needs it"):
        languages.differences(image)


def test_in_java_no_file_has_the_class_of_a_type_that_is_in_another(languages: ModuleType) -> None:
    files = of_contract(languages.for_java(languages.stripped(WHOLE, SOURCES)))
    own = [file.options.java_outer_classname for file in files]
    types = {made.name for file in files for made in (*file.message_type, *file.enum_type, *file.service)}
    assert len({*own}) == len(files)
    assert not types & {*own}
