"""Workflows that ask a model, and a model that can be asked everything."""

from __future__ import annotations

import json
from typing import Any

import flows
import inferring
from blobhub.v1 import execution_pb2
from blobhub_server.blobtypes import json_field
from calling import ask
from inferring import FLOAT, INT64
from onnx import TensorProto, helper
from served import Api

GOOD = {"x": [[1, 2, 3, 4]], "s": ["a"], "i": [0], "n": [1]}
"""Tensors that the model takes."""


def everything() -> bytes:
    """A model that doubles rows, repeats texts, picks of three numbers, and gives as many zeros as one likes."""
    numbers = helper.make_tensor("numbers", FLOAT, [3], [10, 20, 30])
    nodes = [
        helper.make_node("Add", ["x", "x"], ["y"]),
        helper.make_node("Identity", ["s"], ["t"]),
        helper.make_node("Gather", ["numbers", "i"], ["picked"], name="pick"),
        helper.make_node("ConstantOfShape", ["n"], ["zeros"]),
    ]
    inputs = [("x", FLOAT, ["rows", 4]), ("s", TensorProto.STRING, ["k"]), ("i", INT64, ["j"]), ("n", INT64, [1])]
    outputs = [("y", FLOAT, ["rows", 4]), ("t", TensorProto.STRING, ["k"]), ("picked", FLOAT, ["j"])]
    made = inferring.model(nodes, inputs, [*outputs, ("zeros", FLOAT, ["m"])], initializer=[numbers])
    return bytes(made.SerializeToString())


def asks(*given: str, policy: Any = None, **settings: Any) -> str:
    """Start, a model that is asked, end: the result is its answer. `given` are inputs of the execution, tensors by name."""
    return flows.document(
        [
            flows.component("start", "flow.start"),
            *(flows.value(f"value-{name}", name, persistence="execution") for name in given),
            flows.component("ask", "model.infer", policy=policy, **{"model": "acme/scorer"} | settings),
            flows.component("end", "flow.end"),
        ],
        [
            flows.control("start", "ask"),
            *(flows.data(f"value-{name}", "value", "ask", name) for name in given),
            flows.control("ask", "end", "success"),
            flows.data("ask", "outputs", "end", "value"),
        ],
    )


async def started(api: Api, document: str, call: str = "StartExecution", **given: Any) -> execution_pb2.Execution:
    """An execution of a definition, in a session of its own, on behalf of whoever `api` is."""
    await api.put(document)
    session = (await ask(api, "CreateSession", revision="acme/pipeline@draft")).session.id
    data = [{"alias": alias, "value_json": json.dumps(value)} for alias, value in given.items()]
    spec = {"definition": "workflow", "input_data": data}
    return (await ask(api, call, session=session, spec=spec)).execution


async def asked(api: Api, document: str, **given: Any) -> execution_pb2.Execution:
    """The same, once it has ended."""
    return await started(api, document, "RunExecution", **given)


def answer(execution: execution_pb2.Execution) -> Any:
    """The result of an execution, which has to have completed."""
    assert not execution.failure.reason, execution.failure
    return json_field.read(execution, "result")[0]
