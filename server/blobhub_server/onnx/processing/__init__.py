"""What is found out about a model's bytes, in a process of its own: `ModelProcessor.process`."""
