package blobhub

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"

	pb "github.com/blobhub/blobhub/clients/go/blobhub/v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

const chunkBytes = 256 << 10

// SendModel stores a model and waits until it is processed. `first` says which revision it is for, and what it is; size and digest are
// found out. It is sent again from its beginning when the connection breaks, and stored once. `progress` may be nil.
func (c *Client) SendModel(
	ctx context.Context, first *pb.UploadModelRequest, content io.ReadSeeker, progress func(sent, size int64),
) (*pb.ProcessedModel, error) {
	digest := sha256.New()
	start, err := content.Seek(0, io.SeekCurrent)
	if err != nil {
		return nil, err
	}
	size, err := io.Copy(digest, content)
	if err != nil {
		return nil, err
	}
	first = proto.CloneOf(first)
	first.Size, first.Sha256, first.RequestId = size, hex.EncodeToString(digest.Sum(nil)), cmp.Or(first.GetRequestId(), newID())
	for again := (retries{left: c.config.Attempts}); ; {
		if _, err := content.Seek(start, io.SeekStart); err != nil {
			return nil, err
		}
		operation, err := c.send(ctx, first, content, progress)
		if err == nil {
			made := new(pb.ProcessedModel)
			return made, c.Await(ctx, operation, made)
		}
		if !again.wait(ctx, err) {
			return nil, err
		}
	}
}

// send makes one call of UploadModel.
func (c *Client) send(
	ctx context.Context, first *pb.UploadModelRequest, content io.Reader, progress func(sent, size int64),
) (*pb.Operation, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.UploadModel(ctx)
	if err == nil {
		err = stream.Send(first)
	}
	for sent := int64(0); err == nil && sent < first.GetSize(); {
		chunk := make([]byte, min(chunkBytes, first.GetSize()-sent)) // One of its own: gRPC may keep it for a while.
		if _, err = io.ReadFull(content, chunk); err == nil {
			err = stream.Send(&pb.UploadModelRequest{Chunk: chunk})
		}
		if sent += int64(len(chunk)); err == nil && progress != nil {
			progress(sent, first.GetSize())
		}
	}
	if err != nil && err != io.EOF { // The latter means that the server has ended the call; its answer says why.
		return nil, err
	}
	answer, err := stream.CloseAndRecv()
	return answer.GetOperation(), err
}

// Await follows an operation to its end and reads its response into a message. One that has failed is an *Error.
func (c *Client) Await(ctx context.Context, operation *pb.Operation, response proto.Message) error {
	request := &pb.WatchOperationRequest{Operation: operation.GetId()}
	for state, err := range Watch(ctx, c, c.WatchOperation, request, (*pb.WatchOperationResponse).GetOperations) {
		if err != nil {
			return err
		}
		operation = state
	}
	switch operation.GetState() {
	case pb.OperationState_OPERATION_STATE_SUCCEEDED:
		return operation.GetResponse().UnmarshalTo(response)
	case pb.OperationState_OPERATION_STATE_FAILED:
		return typed(status.FromProto(operation.GetError()).Err())
	}
	return fmt.Errorf("operation %s ended as %s", operation.GetId(), operation.GetState())
}

// FetchModel writes an artifact, or a range of it, and goes on where it was when the connection breaks. The digest of a whole artifact is
// compared. `progress` may be nil; `size` is that of the whole artifact.
func (c *Client) FetchModel(
	ctx context.Context, request *pb.DownloadModelRequest, into io.Writer, progress func(received, size int64),
) (*pb.ModelArtifact, error) {
	var artifact *pb.ModelArtifact
	var received int64
	digest, again := sha256.New(), retries{left: c.config.Attempts}
	keep := func(message *pb.DownloadModelResponse) error {
		if told := message.GetArtifact(); told != nil {
			if artifact != nil && artifact.GetDigest() != told.GetDigest() {
				return errors.New("the model was replaced while it was downloaded")
			}
			artifact = told
		}
		if _, err := io.MultiWriter(into, digest).Write(message.GetChunk()); err != nil {
			return err
		}
		received += int64(len(message.GetChunk()))
		again.left = c.config.Attempts
		if progress != nil {
			progress(received, artifact.GetSize())
		}
		return nil
	}
	for {
		asked := proto.CloneOf(request)
		if asked.Offset += received; request.GetLength() > 0 {
			asked.Length -= received
		}
		err := c.fetch(ctx, asked, keep)
		if err == io.EOF || request.GetLength() > 0 && received == request.GetLength() {
			break
		}
		if !again.wait(ctx, err) {
			return artifact, err
		}
	}
	whole := request.GetOffset() == 0 && request.GetLength() == 0
	if whole && hex.EncodeToString(digest.Sum(nil)) != artifact.GetDigest() {
		return artifact, errors.New("what was downloaded does not have the digest of the model")
	}
	return artifact, nil
}

// fetch makes one call of DownloadModel. It answers io.EOF when all has come.
func (c *Client) fetch(ctx context.Context, request *pb.DownloadModelRequest, keep func(*pb.DownloadModelResponse) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.DownloadModel(ctx, request)
	for err == nil {
		var message *pb.DownloadModelResponse
		if message, err = stream.Recv(); err == nil {
			err = keep(message)
		}
	}
	return err
}
