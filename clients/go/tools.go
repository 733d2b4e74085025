//go:build tools

// Package blobhub: the plugins that `make generate` runs, at the versions of go.mod.
package blobhub

import (
	_ "google.golang.org/grpc/cmd/protoc-gen-go-grpc"
	_ "google.golang.org/protobuf/cmd/protoc-gen-go"
)
