"""What sessions and executions are and may do. No gRPC, no protobuf, no SQL."""
