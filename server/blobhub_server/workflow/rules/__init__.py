"""The nouns of workflows and their rules. No gRPC, no protobuf, no SQL."""
