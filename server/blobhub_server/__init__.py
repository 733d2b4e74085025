"""BlobHub's server: typed, versioned blobs that do their work, over gRPC."""

import os

# Else gRPC starts its threads anew in the copy of the server that a fork makes, where they crash, or take what comes to the
# server, until that has become the program that it was made for. It is read when gRPC is loaded, so it is set before.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "false"
