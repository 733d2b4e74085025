package blobhub

import (
	"context"
	"errors"
	"math"
	"net"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	pb "github.com/blobhub/blobhub/clients/go/blobhub/v1"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
)

// fake is a server that fails calls before it answers them.
type fake struct {
	pb.UnimplementedApiKeyServiceServer
	pb.UnimplementedBlobServiceServer
	pb.UnimplementedExecutionServiceServer
	pb.UnimplementedSessionServiceServer
	failing  int // How many calls are still to fail.
	failure  error
	keys     []string // The headers that came.
	requests []proto.Message
	events   []*pb.Event
}

func (f *fake) call(ctx context.Context, request proto.Message) error {
	came, _ := metadata.FromIncomingContext(ctx)
	f.keys, f.requests = append(f.keys, came.Get("authorization")...), append(f.requests, request)
	if f.failing > 0 {
		f.failing--
		return f.failure
	}
	return nil
}

func (f *fake) GetBlob(ctx context.Context, request *pb.GetBlobRequest) (*pb.GetBlobResponse, error) {
	return &pb.GetBlobResponse{Blob: &pb.Blob{Alias: "pipeline"}}, f.call(ctx, request)
}

func (f *fake) CreateBlob(ctx context.Context, request *pb.CreateBlobRequest) (*pb.CreateBlobResponse, error) {
	return &pb.CreateBlobResponse{}, f.call(ctx, request)
}

func (f *fake) CreateApiKey(ctx context.Context, request *pb.CreateApiKeyRequest) (*pb.CreateApiKeyResponse, error) {
	return &pb.CreateApiKeyResponse{}, f.call(ctx, request)
}

func (f *fake) ListBlobs(ctx context.Context, request *pb.ListBlobsRequest) (*pb.ListBlobsResponse, error) {
	pages := map[string]*pb.ListBlobsResponse{
		"":  {Blobs: []*pb.Blob{{Alias: "a"}, {Alias: "b"}}, NextPageToken: "2"},
		"2": {NextPageToken: "3"},
		"3": {Blobs: []*pb.Blob{{Alias: "c"}}},
	}
	return pages[request.GetPageToken()], f.call(ctx, request)
}

// WatchSession sends one event a call, and breaks.
func (f *fake) WatchSession(request *pb.WatchSessionRequest, stream grpc.ServerStreamingServer[pb.WatchSessionResponse]) error {
	if request.GetAfterSessionSequence() == int64(len(f.events)) {
		return f.call(stream.Context(), request)
	}
	f.call(stream.Context(), request)
	stream.Send(&pb.WatchSessionResponse{Events: f.events[request.GetAfterSessionSequence():][:1]})
	return status.Error(codes.Unavailable, "cut")
}

// RunExecution and WatchExecution send events two by two, and break.
func (f *fake) RunExecution(request *pb.RunExecutionRequest, stream grpc.ServerStreamingServer[pb.RunExecutionResponse]) error {
	if err := f.call(stream.Context(), request); err != nil {
		return err
	}
	stream.Send(&pb.RunExecutionResponse{Execution: &pb.Execution{Id: "e"}, Events: f.events[:2]})
	return status.Error(codes.Unavailable, "cut")
}

func (f *fake) WatchExecution(request *pb.WatchExecutionRequest, stream grpc.ServerStreamingServer[pb.WatchExecutionResponse]) error {
	f.call(stream.Context(), request)
	stream.Send(&pb.WatchExecutionResponse{Events: f.events[request.GetAfterExecutionSequence():]})
	return nil
}

// start serves a fake and connects to it.
func start(t *testing.T, service *fake) *Client {
	t.Helper()
	server := grpc.NewServer()
	pb.RegisterApiKeyServiceServer(server, service)
	pb.RegisterBlobServiceServer(server, service)
	pb.RegisterExecutionServiceServer(server, service)
	pb.RegisterSessionServiceServer(server, service)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go server.Serve(listener)
	t.Cleanup(server.Stop)
	return connect(t, Config{Address: listener.Addr().String(), Key: "bhk_key"})
}

func connect(t *testing.T, config Config) *Client {
	t.Helper()
	hub, err := Connect(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { hub.Close() })
	return hub
}

func failure(code codes.Code, details ...protoadapt.MessageV1) error {
	made, err := status.New(code, "no such luck").WithDetails(details...)
	if err != nil {
		panic(err)
	}
	return made.Err()
}

func sequences(events int) []*pb.Event {
	made := make([]*pb.Event, events)
	for index := range made {
		made[index] = &pb.Event{ExecutionId: "e", SessionSequence: int64(index + 1), ExecutionSequence: int64(index + 1)}
	}
	return made
}

func TestASafeCallIsMadeAgainAndAChangeUnderOneRequestID(t *testing.T) {
	service := &fake{failing: 2, failure: status.Error(codes.Unavailable, "down")}
	hub := start(t, service)
	answer, err := hub.GetBlob(context.Background(), &pb.GetBlobRequest{Blob: "acme/pipeline"})
	if err != nil || answer.GetBlob().GetAlias() != "pipeline" || len(service.requests) != 3 {
		t.Fatal(answer, err, service.requests)
	}
	service.failing, service.requests = 2, nil
	request := &pb.CreateBlobRequest{Alias: "pipeline"}
	if _, err := hub.CreateBlob(context.Background(), request); err != nil || len(service.requests) != 3 {
		t.Fatal(err, service.requests)
	}
	for _, sent := range service.requests {
		if !proto.Equal(sent, service.requests[0]) || sent.(*pb.CreateBlobRequest).GetRequestId() == "" {
			t.Error("not the same request:", service.requests)
		}
	}
	if request.GetRequestId() != "" {
		t.Error("the caller's own message was changed")
	}
	if slices.ContainsFunc(service.keys, func(key string) bool { return key != "Bearer bhk_key" }) {
		t.Error(service.keys)
	}
}

func TestAKeyThatIsShownOnceIsNotAskedForTwice(t *testing.T) {
	service := &fake{failing: 1, failure: status.Error(codes.Unavailable, "down")}
	_, err := start(t, service).CreateApiKey(context.Background(), &pb.CreateApiKeyRequest{})
	if status.Code(err) != codes.Unavailable || len(service.requests) != 1 {
		t.Fatal(err, service.requests)
	}
}

func TestWhatIsNotTemporaryIsNotTriedAgainAndWaitingEndsWithTheDeadline(t *testing.T) {
	service := &fake{failing: 9, failure: failure(codes.ResourceExhausted)}
	hub := start(t, service)
	hub.GetBlob(context.Background(), &pb.GetBlobRequest{})
	if len(service.requests) != 1 {
		t.Error(service.requests)
	}
	service.failure = failure(codes.ResourceExhausted, &errdetails.RetryInfo{RetryDelay: durationpb.New(time.Hour)})
	_, err := hub.GetBlob(context.Background(), &pb.GetBlobRequest{})
	if known := new(Error); !errors.As(err, &known) || known.RetryAfter != time.Hour || len(service.requests) != 2 {
		t.Error(err, service.requests)
	}
}

func TestAnErrorIsTypedAndItsTextHasReasonAndViolations(t *testing.T) {
	info := &errdetails.ErrorInfo{Reason: "STALE_ETAG", Domain: "blobhub", Metadata: map[string]string{"etag": "7"}}
	wrong := &errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{
		{Field: "page_size", Description: "must be positive"}, {Description: "no such luck"},
	}}
	hub := start(t, &fake{failing: 1, failure: failure(codes.Aborted, info, wrong)})
	_, err := hub.GetBlob(context.Background(), &pb.GetBlobRequest{})
	known := new(Error)
	if !errors.As(err, &known) || known.ErrorReason() != pb.ErrorReason_ERROR_REASON_STALE_ETAG || known.Metadata["etag"] != "7" {
		t.Fatalf("%#v", err)
	}
	if text := "STALE_ETAG: no such luck; page_size: must be positive"; err.Error() != text || status.Code(err) != codes.Aborted {
		t.Error(err)
	}
}

func TestPagesAreWalkedAndLeft(t *testing.T) {
	service := &fake{}
	hub := start(t, service)
	var aliases []string
	for blob, err := range Page(context.Background(), hub.ListBlobs, &pb.ListBlobsRequest{}, (*pb.ListBlobsResponse).GetBlobs) {
		if err != nil {
			t.Fatal(err)
		}
		aliases = append(aliases, blob.GetAlias())
	}
	if strings.Join(aliases, "") != "abc" || len(service.requests) != 3 {
		t.Error(aliases, service.requests)
	}
	service.requests = nil
	for range Page(context.Background(), hub.ListBlobs, &pb.ListBlobsRequest{}, (*pb.ListBlobsResponse).GetBlobs) {
		break
	}
	if len(service.requests) != 1 {
		t.Error(service.requests)
	}
}

func TestAWatchIsResumedAfterTheLastEvent(t *testing.T) {
	service := &fake{events: sequences(5)}
	hub := start(t, service)
	request := &pb.WatchSessionRequest{Session: "s", AfterSessionSequence: 1}
	var seen []int64
	for event, err := range Watch(context.Background(), hub, hub.WatchSession, request, (*pb.WatchSessionResponse).GetEvents) {
		if err != nil {
			t.Fatal(err)
		}
		seen = append(seen, event.GetSessionSequence())
	}
	if !slices.Equal(seen, []int64{2, 3, 4, 5}) || len(service.requests) != 5 {
		t.Error(seen, service.requests)
	}
}

func TestAGapInALogIsABugOfTheServer(t *testing.T) {
	events := sequences(3)
	events[1].SessionSequence = 3
	hub := start(t, &fake{events: events})
	var last error
	for _, err := range Watch(context.Background(), hub, hub.WatchSession, &pb.WatchSessionRequest{}, (*pb.WatchSessionResponse).GetEvents) {
		last = err
	}
	if last == nil || !strings.Contains(last.Error(), "session_sequence 3 came after 1") {
		t.Error(last)
	}
}

func TestARunStartsOneExecutionAndGivesPlainValues(t *testing.T) {
	events := sequences(4)
	events[3].Payload = &pb.Event_FlowExited{FlowExited: &pb.FlowExited{ResultJson: `{"id": 9223372036854775807}`}}
	service := &fake{events: events, failing: 1, failure: status.Error(codes.Unavailable, "down")}
	hub := start(t, service)
	result, err := hub.Result(context.Background(), "s", "workflow", map[string]any{"order": uint64(math.MaxUint64)})
	if err != nil || !reflect.DeepEqual(result, map[string]any{"id": int64(math.MaxInt64)}) {
		t.Fatal(result, err)
	}
	first, second := service.requests[0].(*pb.RunExecutionRequest), service.requests[1].(*pb.RunExecutionRequest)
	if !proto.Equal(first, second) || first.GetRequestId() == "" || first.GetSpec().GetInputData()[0].GetValueJson() != "18446744073709551615" {
		t.Error(first, second)
	}
	if watch := service.requests[2].(*pb.WatchExecutionRequest); watch.GetExecution() != "e" || watch.GetAfterExecutionSequence() != 2 {
		t.Error(watch)
	}
	events[3].Payload = &pb.Event_FlowError{FlowError: &pb.FlowError{Failure: &pb.Failure{Reason: "SCRIPT_ERROR", Message: "division by zero"}}}
	_, err = hub.Result(context.Background(), "s", "workflow", nil)
	if failed := new(ExecutionError); !errors.As(err, &failed) || failed.Error() != "SCRIPT_ERROR: division by zero" || failed.ExecutionID != "e" {
		t.Error(err)
	}
}

func TestAWatchGivesUpWhereNobodyListens(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0") // And nobody answers.
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	hub := connect(t, Config{Address: taken.Addr().String(), ConnectTimeout: 200 * time.Millisecond})
	var last error
	for _, err := range Watch(context.Background(), hub, hub.WatchSession, &pb.WatchSessionRequest{}, (*pb.WatchSessionResponse).GetEvents) {
		last = err
	}
	if last == nil || !strings.Contains(last.Error(), "no server answers at "+taken.Addr().String()) || status.Code(last) != codes.Unavailable {
		t.Error(last)
	}
}

func TestAWatchOfAContextThatEndsSaysSo(t *testing.T) {
	hub := start(t, &fake{events: sequences(3)})
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var last error
	for _, err := range Watch(ctx, hub, hub.WatchSession, &pb.WatchSessionRequest{}, (*pb.WatchSessionResponse).GetEvents) {
		cancel()
		last = err
	}
	if !errors.Is(last, context.Canceled) {
		t.Error(last)
	}
}

func TestValuesAreExact(t *testing.T) {
	for text, value := range map[string]any{
		"null": nil, "-0e+00": math.Copysign(0, -1), "1.5": 1.5, "9223372036854775807": int64(math.MaxInt64),
		"-9223372036854775808": int64(math.MinInt64), "18446744073709551615": uint64(math.MaxUint64), "1e+20": 1e20,
		`{"a":[1,"\u003cx\u003e",true]}`: map[string]any{"a": []any{int64(1), "<x>", true}},
	} {
		input, err := Input("order", value)
		if err != nil || input.GetValueJson() != text {
			t.Error(value, "is sent as", input.GetValueJson(), err)
		}
		if back, err := Plain(nil, text); err != nil || !same(back, value) {
			t.Errorf("%s is read as %#v %v", text, back, err)
		}
	}
	if _, err := Input("order", math.NaN()); err == nil {
		t.Error("NaN is no JSON")
	}
	sent, _ := structpb.NewValue(map[string]any{"n": 3, "x": 1e300, "zero": math.Copysign(0, -1), "list": []any{nil, 0.5}})
	want := map[string]any{"n": int64(3), "x": 1e300, "zero": math.Copysign(0, -1), "list": []any{nil, 0.5}}
	if got, _ := Plain(sent, ""); !same(got, want) {
		t.Errorf("%#v", got)
	}
	if got, err := Plain(nil, ""); got != nil || err != nil {
		t.Error(got, err)
	}
}

// same tells values that differ in the sign of zero, too.
func same(a, b any) bool {
	x, isFloat := a.(float64)
	y, areFloats := b.(float64)
	return reflect.DeepEqual(a, b) && (!isFloat || !areFloats || math.Signbit(x) == math.Signbit(y))
}
