package blobhub_test

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/blobhub/blobhub/clients/go"
	pb "github.com/blobhub/blobhub/clients/go/blobhub/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// What these tests need is told by `make clients`, which runs a server and the networks before it: see tests/conformance.

// needs answers a setting of the conformance run. Without it the test is skipped.
func needs(t *testing.T, name string) string {
	t.Helper()
	value := os.Getenv("CONFORMANCE_" + name)
	if value == "" {
		t.Skip("it is run by `make clients`")
	}
	return value
}

// hub connects to the server by one of its addresses: ADDRESS, LOSING, CUTTING.
func hub(t *testing.T, address string) *blobhub.Client {
	t.Helper()
	made, err := blobhub.Connect(blobhub.Config{Address: needs(t, address), Key: needs(t, "KEY")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { made.Close() })
	return made
}

func must[T any](t *testing.T) func(T, error) T {
	t.Helper()
	return func(answer T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return answer
	}
}

// refused tells whether a call failed as it should.
func refused(t *testing.T, err error, code codes.Code, reason pb.ErrorReason, texts ...string) *blobhub.Error {
	t.Helper()
	failed := new(blobhub.Error)
	if !errors.As(err, &failed) || failed.Code != code || failed.ErrorReason() != reason {
		t.Fatalf("%v in place of %s %s", err, code, reason)
	}
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("%q does not say %q", err, text)
		}
	}
	return failed
}

func TestConformancePagesOverAThousandItems(t *testing.T) {
	hub, seen := hub(t, "ADDRESS"), map[string]bool{}
	request := &pb.ListBlobsRequest{Organization: needs(t, "SHARED"), PageSize: 37}
	for blob, err := range blobhub.Page(context.Background(), hub.ListBlobs, request, (*pb.ListBlobsResponse).GetBlobs) {
		if err != nil {
			t.Fatal(err)
		}
		if seen[blob.GetId()] {
			t.Errorf("%s came twice", blob.GetAlias())
		}
		seen[blob.GetId()] = true
	}
	if want := needs(t, "ITEMS"); fmt.Sprint(len(seen)) != want {
		t.Errorf("%d items in place of %s", len(seen), want)
	}
}

func TestConformanceErrorsHaveReasons(t *testing.T) {
	ctx, hub, organization := context.Background(), hub(t, "ADDRESS"), needs(t, "ORGANIZATION")+"-errors"
	must[*pb.CreateOrganizationResponse](t)(hub.CreateOrganization(ctx, &pb.CreateOrganizationRequest{Alias: organization}))
	create := &pb.CreateBlobRequest{
		Organization: organization, Alias: "pipeline", Type: "blobhub.compute.workflow", RequestId: "0a0e2a38-7d5c-4a6b-8f0e-3f6f0c1d2b4a",
	}
	blob := must[*pb.CreateBlobResponse](t)(hub.CreateBlob(ctx, create)).GetBlob()

	_, err := hub.GetBlob(ctx, &pb.GetBlobRequest{Blob: organization + "/nothing"})
	refused(t, err, codes.NotFound, pb.ErrorReason_ERROR_REASON_NOT_FOUND, "NOT_FOUND", organization+"/nothing")
	_, err = hub.ListBlobs(ctx, &pb.ListBlobsRequest{Organization: organization, PageSize: -1})
	if failed := refused(t, err, codes.InvalidArgument, pb.ErrorReason_ERROR_REASON_INVALID_REQUEST, "page_size"); len(failed.Violations) != 1 {
		t.Error(failed.Violations)
	}
	update := &pb.UpdateBlobRequest{Blob: blob.GetId(), Etag: "stale"}
	_, err = hub.UpdateBlob(ctx, update)
	if failed := refused(t, err, codes.Aborted, pb.ErrorReason_ERROR_REASON_STALE_ETAG); failed.Metadata["etag"] != blob.GetEtag() {
		t.Error(failed.Metadata)
	}
	create.Alias = "another"
	_, err = hub.CreateBlob(ctx, create)
	failed := refused(t, err, codes.AlreadyExists, pb.ErrorReason_ERROR_REASON_REQUEST_ID_REUSED)
	if failed.Metadata["request_id"] != create.GetRequestId() {
		t.Error(failed.Metadata)
	}
	nobody := must[*blobhub.Client](t)(blobhub.Connect(blobhub.Config{Address: needs(t, "ADDRESS")}))
	defer nobody.Close()
	_, err = nobody.GetBlob(ctx, &pb.GetBlobRequest{Blob: blob.GetId()})
	refused(t, err, codes.Unauthenticated, pb.ErrorReason_ERROR_REASON_UNAUTHENTICATED, "no key came with this call")
}

func TestConformanceNothingIsDoneTwiceWhenCallsAndAnswersAreLost(t *testing.T) {
	ctx, hub, organization := context.Background(), hub(t, "LOSING"), needs(t, "ORGANIZATION")+"-losing"
	must[*pb.CreateOrganizationResponse](t)(hub.CreateOrganization(ctx, &pb.CreateOrganizationRequest{Alias: organization}))
	for number := range 5 {
		create := &pb.CreateBlobRequest{Organization: organization, Alias: fmt.Sprintf("blob-%d", number), Type: "blobhub.compute.workflow"}
		must[*pb.CreateBlobResponse](t)(hub.CreateBlob(ctx, create))
	}
	session := open(t, hub)
	result := must[any](t)(hub.Result(ctx, session, "echo", map[string]any{"given": uint64(1<<64 - 1)}))
	if result != uint64(1<<64-1) {
		t.Errorf("%v %T", result, result)
	}
	changes := map[string]int{}
	log := &pb.WatchAuditEntriesRequest{Parent: organization, ReplayOnly: true}
	for entry, err := range blobhub.Watch(ctx, hub, hub.WatchAuditEntries, log, (*pb.WatchAuditEntriesResponse).GetEntries) {
		if err != nil {
			t.Fatal(err)
		}
		changes[entry.GetMethod()]++
	}
	if changes["blobhub.v1.OrganizationService/CreateOrganization"] != 1 || changes["blobhub.v1.BlobService/CreateBlob"] != 5 {
		t.Error(changes)
	}
	list := &pb.ListExecutionsRequest{Blob: needs(t, "SHARED") + "/" + needs(t, "BLOB"), Session: session}
	if made := must[*pb.ListExecutionsResponse](t)(hub.ListExecutions(ctx, list)).GetExecutions(); len(made) != 1 {
		t.Error(made)
	}
}

// open makes a session on the shared workflow.
func open(t *testing.T, hub *blobhub.Client) string {
	t.Helper()
	request := &pb.CreateSessionRequest{Revision: needs(t, "SHARED") + "/" + needs(t, "BLOB") + "@draft"}
	return must[*pb.CreateSessionResponse](t)(hub.CreateSession(context.Background(), request)).GetSession().GetId()
}

func TestConformanceAWatchThatIsCutSeesEveryEventOnce(t *testing.T) {
	ctx, direct, cut := context.Background(), hub(t, "ADDRESS"), hub(t, "CUTTING")
	session := open(t, direct)
	start := func(executions int) {
		for range executions {
			spec := &pb.ExecutionSpec{Definition: "loud"}
			must[*pb.StartExecutionResponse](t)(direct.StartExecution(ctx, &pb.StartExecutionRequest{Session: session, Spec: spec}))
		}
	}
	start(3)
	var seen []string
	ended := 0
	for event, err := range blobhub.Watch(ctx, cut, cut.WatchSession, &pb.WatchSessionRequest{Session: session}, (*pb.WatchSessionResponse).GetEvents) {
		if err != nil {
			t.Fatal(err)
		}
		seen = append(seen, event.GetId())
		if event.GetType() == "flow.exited" {
			if ended++; ended == 2 {
				start(3)
			} else if ended == 6 {
				must[*pb.CloseSessionResponse](t)(direct.CloseSession(ctx, &pb.CloseSessionRequest{Session: session}))
			}
		}
	}
	var all []string
	replay := &pb.WatchSessionRequest{Session: session, ReplayOnly: true}
	for event, err := range blobhub.Watch(ctx, direct, direct.WatchSession, replay, (*pb.WatchSessionResponse).GetEvents) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, event.GetId())
	}
	if strings.Join(seen, " ") != strings.Join(all, " ") {
		t.Errorf("%d events were seen, of %d", len(seen), len(all))
	}
}

func TestConformanceALargeModelGoesUpAndDown(t *testing.T) {
	ctx, hub, organization := context.Background(), hub(t, "ADDRESS"), needs(t, "ORGANIZATION")+"-model"
	must[*pb.CreateOrganizationResponse](t)(hub.CreateOrganization(ctx, &pb.CreateOrganizationRequest{Alias: organization}))
	create := &pb.CreateBlobRequest{Organization: organization, Alias: "scorer", Type: "blobhub.model.onnx"}
	must[*pb.CreateBlobResponse](t)(hub.CreateBlob(ctx, create))
	content := must[[]byte](t)(os.ReadFile(needs(t, "MODEL")))
	var sent, received int64
	first := &pb.UploadModelRequest{Revision: organization + "/scorer@draft"}
	stored := must[*pb.ProcessedModel](t)(hub.SendModel(ctx, first, bytes.NewReader(content), func(bytes, _ int64) { sent = bytes }))
	if size := int64(len(content)); stored.GetModel().GetSize() != size || sent != size {
		t.Error(stored.GetModel().GetSize(), sent, size)
	}
	var back bytes.Buffer
	fetch := &pb.DownloadModelRequest{Revision: organization + "/scorer@draft"}
	must[*pb.ModelArtifact](t)(hub.FetchModel(ctx, fetch, &back, func(bytes, _ int64) { received = bytes }))
	if !bytes.Equal(back.Bytes(), content) || received != int64(len(content)) {
		t.Error(back.Len(), received)
	}
	refusedModel := &pb.UploadModelRequest{Revision: organization + "/scorer@draft"}
	_, err := hub.SendModel(ctx, refusedModel, strings.NewReader("no model"), nil)
	if failed := new(blobhub.Error); !errors.As(err, &failed) || failed.Domain != "blobhub.model.onnx" || failed.Reason == "" {
		t.Error(err)
	}
}

// A golden message, as a language writes it.
type golden struct {
	Type string `json:"type"`
	Wire []byte `json:"wire"`
	JSON string `json:"json"`
}

func TestConformanceMessagesOfEveryTypeAreReadAndWritten(t *testing.T) {
	files := must[[]string](t)(filepath.Glob(filepath.Join(needs(t, "GOLDEN"), "*.jsonl")))
	for _, path := range files {
		lines := bufio.NewScanner(bytes.NewReader(must[[]byte](t)(os.ReadFile(path))))
		lines.Buffer(nil, 1<<20)
		var written bytes.Buffer
		for number := 1; lines.Scan(); number++ {
			var line golden
			if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
				t.Fatal(err)
			}
			kind := must[protoreflect.MessageType](t)(protoregistry.GlobalTypes.FindMessageByName(protoreflect.FullName(line.Type)))
			wire, text := kind.New().Interface(), kind.New().Interface()
			if err := cmp.Or(proto.Unmarshal(line.Wire, wire), protojson.Unmarshal([]byte(line.JSON), text)); err != nil {
				t.Errorf("%s:%d: %s: %v", path, number, line.Type, err)
			} else if !proto.Equal(wire, text) {
				t.Errorf("%s:%d: %s: the wire says %v, the text %v", path, number, line.Type, wire, text)
			}
			line.Wire, line.JSON = must[[]byte](t)(proto.Marshal(wire)), string(must[[]byte](t)(protojson.Marshal(text)))
			written.Write(append(must[[]byte](t)(json.Marshal(line)), '\n'))
		}
		if filepath.Base(path) == "python.jsonl" {
			if err := os.WriteFile(filepath.Join(filepath.Dir(path), "go.jsonl"), written.Bytes(), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
}
