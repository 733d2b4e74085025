"""The services of the ONNX slice: its nouns on the wire."""
