"""BlobHub's server: typed, versioned blobs that do their work, over gRPC."""
