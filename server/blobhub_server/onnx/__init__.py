"""The ONNX slice: blobs that hold a model, check it, show it and answer with it."""
