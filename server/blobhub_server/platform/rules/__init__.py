"""What the platform's nouns are and may do. No gRPC, no protobuf, no SQL."""
