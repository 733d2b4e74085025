"""Models as messages."""

from __future__ import annotations

from blobhub.v1 import model_pb2 as pb

from blobhub_server.blobtypes.values import Entry
from blobhub_server.onnx.models import ARTIFACTS, MODEL, Model
from blobhub_server.onnx.processing.report import TensorSpec
from blobhub_server.rpc.wire import to_timestamp


def to_proto(model: Model) -> pb.Model:
    """A model as its message."""
    entry, signature = model.entries[MODEL], model.signature
    return pb.Model(
        revision_id=entry.revision_id,
        digest=entry.digest,
        size=entry.size,
        inputs=map(_tensor, signature.inputs),
        outputs=map(_tensor, signature.outputs),
        opsets=[pb.ModelOpset(domain=domain, version=version) for domain, version in signature.opsets.items()],
        ir_version=signature.ir_version,
        producer_name=signature.producer_name,
        producer_version=signature.producer_version,
        node_count=signature.node_count,
        parameter_count=signature.parameter_count,
        artifacts=[to_artifact(model.entries[path]) for path in ARTIFACTS],
        create_time=to_timestamp(entry.create_time),
        update_time=to_timestamp(entry.update_time),
    )


def to_artifact(entry: Entry) -> pb.ModelArtifact:
    """An entry of a model as what can be downloaded."""
    return pb.ModelArtifact(path=entry.name, size=entry.size, digest=entry.digest)


def _tensor(spec: TensorSpec) -> pb.ModelTensor:
    shape = None if spec.shape is None else pb.ModelShape(dimensions=spec.shape)
    return pb.ModelTensor(name=spec.name, datatype=spec.datatype, type=spec.type, shape=shape)
