"""What MLServer needs to answer with an ONNX model. It runs in MLServer's own environment."""

import onnxruntime
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse
from mlserver.utils import get_model_uri


class OnnxModel(MLModel):
    """A model that onnxruntime runs, with one thread as BlobHub has it."""

    async def load(self) -> bool:
        """Load it."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(await get_model_uri(self._settings), options)
        self._outputs = [each.name for each in self._session.get_outputs()]
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Answer."""
        arrays = self._session.run(None, {each.name: NumpyCodec.decode_input(each) for each in payload.inputs})
        outputs = [NumpyCodec.encode_output(name, array) for name, array in zip(self._outputs, arrays, strict=True)]
        return InferenceResponse(model_name=self.name, outputs=outputs)
