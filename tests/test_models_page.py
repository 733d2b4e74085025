"""The page of models is so: its program runs as it stands."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import Any

import pytest
from blobhub_client import connect
from onnx import TensorProto, helper
from served import ServerProcess

PAGE = (Path(__file__).resolve().parent.parent / "docs" / "models.md").read_text()


def row_sums() -> bytes:
    """The model that the page asks: it adds up the numbers of each row."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 1])
    axes = helper.make_tensor("axes", TensorProto.INT64, [1], [1])
    graph = helper.make_graph([helper.make_node("ReduceSum", ["x", "axes"], ["y"])], "sums", [x], [y], [axes])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    return bytes(model.SerializeToString())


async def test_the_program_on_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pieces = re.findall(r"```python\n(.*?)```", PAGE, re.S)
    assert len(pieces) == PAGE.count("```python\n") > 5
    program = "async def program(hub):\n" + textwrap.indent("\n".join(pieces), "    ")
    made: dict[str, Any] = {}
    exec(compile(program, "docs/models.md", "exec"), made)
    (tmp_path / "model.onnx").write_bytes(row_sums())
    monkeypatch.chdir(tmp_path)
    server = ServerProcess(tmp_path / "data")
    await server.start()
    async with connect(server.address, server.admin_key) as hub:
        await made["program"](hub)
    assert server.stop() == 0
