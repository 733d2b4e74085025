"""Answers of models: each loaded model in a process of its own, with a bounded queue before it (`InferenceEngine`)."""
