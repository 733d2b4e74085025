"""What a user of `tritonclient` does, unmodified: run in an environment of its own, with an address, a key and a model.

It prints what it was answered, as JSON.
"""

from __future__ import annotations

import json
import sys

import numpy as np
from tritonclient import grpc as triton
from tritonclient.utils import InferenceServerException


def main(address: str, key: str, model: str, version: str) -> None:
    headers = {"authorization": f"Bearer {key}"}
    client = triton.InferenceServerClient(address)
    named = {"model_name": model, "model_version": version, "headers": headers}
    said = {
        "live": client.is_server_live(),
        "ready": client.is_server_ready(),
        "server": client.get_server_metadata(as_json=True),
        "index": client.get_model_repository_index(headers=headers, as_json=True),
        "model_ready": client.is_model_ready(**named),
        "metadata": client.get_model_metadata(**named, as_json=True),
        "config": client.get_model_config(**named, as_json=True),
    }
    rows = np.arange(8, dtype=np.float32).reshape(2, 4)
    sent = triton.InferInput("x", rows.shape, "FP32")
    sent.set_data_from_numpy(rows)
    answer = client.infer(inputs=[sent], outputs=[triton.InferRequestedOutput("y")], request_id="mine", **named)
    said["y"] = answer.as_numpy("y").tolist()
    said["id"] = answer.get_response().id
    typed = triton.InferInput("x", rows.shape, "FP64")
    typed.set_data_from_numpy(rows.astype(np.float64))
    try:
        client.infer(inputs=[typed], **named)
    except InferenceServerException as error:
        said["refused"] = [error.status(), error.message()]
    said["statistics"] = client.get_inference_statistics(**named, as_json=True)
    try:
        client.is_model_ready("acme/nothing", headers=headers)
    except InferenceServerException as error:
        said["unknown"] = error.status()
    print(json.dumps(said))


if __name__ == "__main__":
    main(*sys.argv[1:])
