"""What uploads of models are, and what may be done with them. No SQL, gRPC or protobuf."""
