"""What is found out about models, in a process that hostile ones may end, and that opens nothing for them."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import onnx_models
import pytest
from blobhub_server.onnx import confinement
from blobhub_server.onnx.processing.limits import ProcessingLimits
from blobhub_server.onnx.processing.processor import CHILD, ModelProcessor
from blobhub_server.onnx.processing.report import Report, Signature, TensorSpec
from blobhub_server.onnx.refusal import RefusalReason, Refused
from impostor import any_runs, behave, linger
from onnx import TensorProto, helper
from onnx_models import Hostile, hostile, magika, relu
from waiting import until

LIMITS = replace(ProcessingLimits(), max_memory_bytes=2 << 30, max_wall_seconds=120)
PARTY = ("organization", "caller")


async def process(path: Path, limits: ProcessingLimits = LIMITS) -> Report | Refused:
    with path.open("rb") as model:
        return await ModelProcessor(1).process(model, limits, PARTY)


async def process_bytes(tmp_path: Path, data: bytes, limits: ProcessingLimits = LIMITS) -> Report | Refused:
    path = tmp_path / "uploaded"
    path.write_bytes(data)
    return await process(path, limits)


async def test_a_real_model_is_described() -> None:
    report = await process(magika())
    assert isinstance(report, Report)
    assert report.inputs == (TensorSpec(name="bytes", datatype="INT32", type="tensor(int32)", shape=(-1, 2048)),)
    assert report.outputs == (TensorSpec(name="target_label", datatype="FP32", type="tensor(float)", shape=(-1, 214)),)
    assert (report.opsets["ai.onnx"], report.producer_name, report.node_count) == (15, "tf2onnx", 95)
    assert 700_000 < report.parameter_count < magika().stat().st_size / 4
    document = json.loads(report.model_json)
    assert len(document["graph"]["nodes"]) == 95
    assert len(report.model_json) < 100_000
    assert report.dot.count("[label=") == report.mermaid.count('"') / 2 == 97


async def test_a_large_graph_is_drawn_as_its_kinds_of_operators_and_its_document_is_bounded(tmp_path: Path) -> None:
    names = ["x", *(f"v{number}" for number in range(4_999)), "y"]
    nodes = [helper.make_node(("Relu", "Abs")[i % 2], [names[i]], [names[i + 1]]) for i in range(5_000)]
    limits = replace(LIMITS, max_document_bytes=20_000)
    report = await process_bytes(tmp_path, onnx_models.model(nodes).SerializeToString(), limits)
    assert isinstance(report, Report)
    assert report.dot.splitlines()[2:-1] == [
        '  n0 [label="Relu × 2500"];',
        '  n1 [label="Abs × 2500"];',
        '  n0 -> n1 [label="× 2500"];',
        '  n1 -> n0 [label="× 2499"];',
    ]
    graph = json.loads(report.model_json)["graph"]
    assert len(report.model_json) <= 20_000
    assert len(graph["nodes"]) + graph["nodes_omitted"] == 5_000 == report.node_count


async def test_names_do_not_get_out_of_their_places_in_a_drawing(tmp_path: Path) -> None:
    model = relu()
    model.graph.input[0].name = model.graph.node[0].input[0] = 'a"];\n n9 [label="&<b>#\\'
    report = await process_bytes(tmp_path, model.SerializeToString())
    assert isinstance(report, Report)
    assert report.dot.splitlines()[2] == '  n0 [label="a\\"];  n9 [label=\\"&<b>#\\\\", shape=ellipse];'
    assert report.mermaid.splitlines()[1] == '  n0(["a#quot;];  n9 [label=#quot;#amp;#lt;b#gt;#35;\\"])'


async def test_what_the_protocol_has_no_name_for_is_told_by_onnxruntimes_name(tmp_path: Path) -> None:
    """Such as the probabilities of a classifier as scikit-learn converts it."""
    scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 2])
    zipped = helper.make_node("ZipMap", ["scores"], ["y"], domain="ai.onnx.ml", classlabels_int64s=[0, 1])
    model = onnx_models.model([zipped], domains=["ai.onnx.ml"])
    model.graph.input[0].CopyFrom(scores)
    type_ = model.graph.output[0].type
    type_.sequence_type.elem_type.map_type.key_type = TensorProto.INT64
    type_.sequence_type.elem_type.map_type.value_type.tensor_type.elem_type = TensorProto.FLOAT
    report = await process_bytes(tmp_path, model.SerializeToString())
    assert isinstance(report, Report)
    assert report.inputs == (TensorSpec(name="scores", datatype="FP32", type="tensor(float)", shape=(-1, 2)),)
    assert report.outputs == (TensorSpec(name="y", datatype="", type="seq(map(int64,tensor(float)))", shape=None),)


@pytest.mark.parametrize("case", hostile(), ids=lambda case: case.name)
async def test_a_hostile_model_is_refused_in_words(tmp_path: Path, case: Hostile) -> None:
    outcome = await process_bytes(tmp_path, case.data)
    print(outcome)
    assert isinstance(outcome, Refused)
    assert outcome.reason is case.reason
    assert case.says in outcome.message
    assert outcome.message.isprintable()
    assert "/onnxruntime" not in outcome.message


@pytest.mark.parametrize("place", onnx_models.PLACES, ids=lambda place: place.__name__)
@pytest.mark.parametrize("told", [True, False], ids=["told", "not told"])
async def test_external_data_is_refused_wherever_it_stands(tmp_path: Path, place, told: bool) -> None:
    outcome = await process_bytes(tmp_path, place(onnx_models.external("secret.bin", told=told)).SerializeToString())
    assert isinstance(outcome, Refused)
    assert outcome.reason is RefusalReason.EXTERNAL_DATA
    assert "'secret.bin'" in outcome.message


def secrets(folder: Path) -> list[str]:
    """Locations of one number in a file, by every kind of path."""
    folder.mkdir()
    (folder / "weights.bin").write_bytes(bytes(4))
    (folder / "symlink.bin").symlink_to(folder / "weights.bin")
    (folder / "hardlink.bin").hardlink_to(folder / "weights.bin")
    names = ["weights.bin", "symlink.bin", "hardlink.bin"]
    return [*names, *(f"./{name}" for name in names), f"../{folder.name}/weights.bin", str(folder / "weights.bin")]


def traced(folder: Path, log: Path, code: list[str], model: bytes) -> list[str]:
    """What a process does with files and sockets after it has let go of them, run in a folder."""
    path = log.with_suffix(".onnx")
    path.write_bytes(model)
    command = ["strace", "-f", "-qq", "-e", "trace=%file,%network,prlimit64,setrlimit", "-o", str(log)]
    with path.open("rb") as file:
        subprocess.run(
            [*command, sys.executable, "-I", "-B", *code],
            cwd=folder,
            env=confinement.ENVIRONMENT,
            stdin=file,
            capture_output=True,
            check=False,
        )
    lines = log.read_text().splitlines()
    assert not any("AF_INET" in line for line in lines), "nothing is told to anybody"
    assert not any("O_WRONLY" in line or "O_RDWR" in line or "mkdir" in line for line in lines), "nothing is written"
    closed = next(n for n, line in enumerate(lines) if "RLIMIT_NOFILE, {rlim_cur=0," in line)
    return lines[closed + 1 :]


def opened(lines: list[str]) -> list[str]:
    """The calls that have opened something."""
    return [line for line in lines if re.match(r"\d+ open\w*\(", line) and "= -1" not in line]


needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")


@needs_strace
def test_nothing_is_opened_for_a_model(tmp_path: Path) -> None:
    lines = traced(tmp_path, tmp_path / "sound", ["-m", CHILD, "{}"], magika().read_bytes())
    assert opened(lines) == []
    for number, location in enumerate(secrets(tmp_path / "folder")):
        data = onnx_models.in_initializer(onnx_models.external(location)).SerializeToString()
        lines = traced(tmp_path / "folder", tmp_path / f"log-{number}", ["-m", CHILD, "{}"], data)
        assert [line for line in lines if ".bin" in line] == []


UNCHECKED = """
import sys
from blobhub_server.onnx import confinement
from blobhub_server.onnx.processing.child import examination, loading
data = sys.stdin.buffer.read()
confinement.open_nothing_more()
for load in (loading.check, lambda data: loading.load(data, examination._parse(data))):
    try:
        load(data)
    except Exception as error:
        print(error)
"""


@needs_strace
def test_a_model_that_got_past_our_checks_would_open_nothing_either(tmp_path: Path) -> None:
    tried = []
    for number, location in enumerate(secrets(tmp_path / "folder")):
        data = onnx_models.in_initializer(onnx_models.external(location)).SerializeToString()
        lines = traced(tmp_path / "folder", tmp_path / f"log-{number}", ["-c", UNCHECKED], data)
        tried += [line for line in lines if ".bin" in line]
        assert opened(lines) == []
    assert tried, "onnxruntime looks for them, so this shows something"


async def test_the_process_has_a_folder_without_anything_and_reads_no_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "value")
    told = tmp_path / "told"
    await answered(tmp_path, monkeypatch, f"(pwd; ls -A; env) >{told}")
    folder, *rest = told.read_text().splitlines()
    assert not Path(folder).exists()
    assert {line.partition("=")[0] for line in rest} - {"PWD", "SHLVL", "_", "OLDPWD"} == set(confinement.ENVIRONMENT)


async def answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> Report | Refused:
    """What processing makes of a process that does something else."""
    behave(tmp_path, monkeypatch, script)
    return await process_bytes(tmp_path, b"model")


@pytest.mark.parametrize(
    ("script", "reason", "says"),
    [
        ("kill -SEGV $$", RefusalReason.UNLOADABLE, "signal 11"),
        ("exit 3", RefusalReason.UNLOADABLE, "status 3"),
        ("echo '{\"report\": {}}'", RefusalReason.UNLOADABLE, "status 0"),
        ("echo '[1]'", RefusalReason.UNLOADABLE, "status 0"),
        ("printf '\\377'", RefusalReason.UNLOADABLE, "status 0"),
        ("yes | head -c 30000000", RefusalReason.UNLOADABLE, "status 0"),
        ("yes | head -c 3000000 >&2; exit 1", RefusalReason.UNLOADABLE, "status 1"),
        ("kill -XCPU $$", RefusalReason.LIMITS, "processor time"),
        ("echo std::bad_alloc >&2; kill -ABRT $$", RefusalReason.LIMITS, "2048 MiB of memory"),
    ],
)
async def test_a_process_that_ends_without_an_answer_is_a_refusal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, reason: RefusalReason, says: str
) -> None:
    outcome = await answered(tmp_path, monkeypatch, script)
    assert isinstance(outcome, Refused)
    assert outcome.reason is reason
    assert says in outcome.message


async def test_a_process_that_takes_too_long_is_ended_with_all_that_it_has_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pids = linger(tmp_path, monkeypatch)
    limits = replace(LIMITS, max_wall_seconds=3)
    outcome = await process_bytes(tmp_path, b"model", limits)
    assert isinstance(outcome, Refused)
    assert outcome.reason is RefusalReason.LIMITS
    await until(lambda: not (pids.exists() and any_runs(pids)))


async def test_a_cancelled_caller_leaves_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pids = linger(tmp_path, monkeypatch)
    task = asyncio.create_task(process_bytes(tmp_path, b"model"))
    await until(pids.exists)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: not any_runs(pids))


async def test_no_more_processes_run_at_once_than_may(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held, overlapped = tmp_path / "held", tmp_path / "overlapped"
    behave(tmp_path, monkeypatch, f"mkdir {held} || touch {overlapped}; sleep 0.1; rmdir {held}")
    (tmp_path / "uploaded").write_bytes(b"model")
    models = ModelProcessor(1)
    with (tmp_path / "uploaded").open("rb") as model:
        await asyncio.gather(*(models.process(model, LIMITS, (str(n), "")) for n in range(5)))
    assert not overlapped.exists()


async def test_a_model_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    outcome = await process(path)
    path.unlink()  # All that tests leave is searched for secrets, holes as well.
    assert isinstance(outcome, Refused)
    assert outcome.reason is RefusalReason.TOO_LARGE


async def test_nodes_are_limited(tmp_path: Path) -> None:
    nodes = [helper.make_node("Relu", ["x"], [f"v{number}"]) for number in range(20)]
    limits = replace(LIMITS, max_nodes=10)
    outcome = await process_bytes(tmp_path, onnx_models.model(nodes).SerializeToString(), limits)
    assert outcome == Refused(RefusalReason.TOO_LARGE, "the model has more than 10 nodes")


async def test_a_signature_is_stored_and_read_as_it_was() -> None:
    report = await process(magika())
    assert isinstance(report, Report)
    stored = report.encode()
    assert b"model_json" not in stored
    assert asdict(Signature.decode(stored)) == {name: told for name, told in asdict(report).items() if name != "model_json"}


def test_the_libraries_are_not_loaded_with_the_server() -> None:
    code = (
        "import sys, blobhub_server.app, blobhub_server.onnx.archive, blobhub_server.onnx.processing.processor\n"
        "print({'numpy', 'onnx', 'onnxruntime'} & set(sys.modules))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    assert ran.stdout == "set()\n"
