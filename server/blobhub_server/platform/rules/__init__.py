"""The platform's nouns and their rules. No gRPC, no protobuf, no SQL."""
