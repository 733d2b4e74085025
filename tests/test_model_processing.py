"""What is found out about models, in a process that hostile ones may end."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import onnx_models
import pytest
from blobhub_server.onnx import confinement
from blobhub_server.onnx.processing.limits import ProcessingLimits
from blobhub_server.onnx.processing.processor import ModelProcessor
from blobhub_server.onnx.processing.report import Report, Signature, TensorSpec
from blobhub_server.onnx.refusal import RefusalReason, Refused
from examining import examine_all
from impostor import any_runs, behave, linger
from onnx import TensorProto, helper
from onnx_hostile import Hostile, hostile
from onnx_models import magika, relu
from scale import sample
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
    assert report.dot.splitlines()[2] == '  n0 [label="a\\"];  n9 [label=\\"&amp;<b>#\\\\", shape=ellipse];'
    assert report.mermaid.splitlines()[1] == '  n0(["a#quot;];  n9 [label=#quot;#amp;#lt;b#gt;#35;#92;"])'


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


def require_refusal(case: Hostile, outcome: Report | Refused) -> None:
    """Fail unless a model was refused for its reason, in words for its sender."""
    print(f"{case.name}: {outcome}")
    assert isinstance(outcome, Refused), case.name
    assert outcome.reason is case.reason, case.name
    assert case.says in outcome.message, case.name
    assert outcome.message.isprintable(), case.name
    assert "/onnxruntime" not in outcome.message, case.name


async def test_every_hostile_model_is_refused_in_words(tmp_path: Path) -> None:
    cases = hostile()
    for case, outcome in zip(cases, await examine_all(tmp_path, [case.data for case in cases], LIMITS), strict=True):
        require_refusal(case, outcome)


SOME = sample(hostile(), lambda case: [case.reason], seed=12)
"""For each a process is started, as the server does it; the others are examined in processes that are forked."""


@pytest.mark.parametrize("case", SOME, ids=lambda case: case.name)
async def test_a_hostile_model_is_refused_in_words(tmp_path: Path, case: Hostile) -> None:
    require_refusal(case, await process_bytes(tmp_path, case.data))


async def test_a_model_that_computes_for_minutes_while_it_is_loaded_is_refused(tmp_path: Path) -> None:
    endless = onnx_models.filled(4_000, 4_000, products=1_000).SerializeToString()
    (outcome,) = await examine_all(tmp_path, [endless], replace(LIMITS, max_cpu_seconds=1))
    assert isinstance(outcome, Refused)
    assert (outcome.reason, "1 s of processor time" in outcome.message) == (RefusalReason.LIMITS, True)


@pytest.mark.parametrize("place", onnx_models.PLACES, ids=lambda place: place.__name__)
@pytest.mark.parametrize("told", [True, False], ids=["told", "not told"])
async def test_external_data_is_refused_wherever_it_stands(tmp_path: Path, place, told: bool) -> None:
    outcome = await process_bytes(tmp_path, place(onnx_models.external("secret.bin", told=told)).SerializeToString())
    assert isinstance(outcome, Refused)
    assert outcome.reason is RefusalReason.EXTERNAL_DATA
    assert "'secret.bin'" in outcome.message


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
