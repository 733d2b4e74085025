// Package blobhub is a small client for BlobHub: it connects with a key, repeats what is safe to repeat, walks pages, runs and
// watches with automatic resume, and moves models. Everything else is the generated stubs, whose methods a Client has.
//
//	hub, err := blobhub.Connect(blobhub.Config{Address: "127.0.0.1:7443", Key: key})
//	for blob, err := range blobhub.Page(ctx, hub.ListBlobs, &pb.ListBlobsRequest{Organization: "acme"}, (*pb.ListBlobsResponse).GetBlobs) {
//		...
//	}
package blobhub

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"iter"
	mathrand "math/rand/v2"
	"strings"
	"time"

	pb "github.com/blobhub/blobhub/clients/go/blobhub/v1"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	grpcbackoff "google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
)

const minDelay, maxDelay = 100 * time.Millisecond, 10 * time.Second

// Config says where the server is and how it is called. Only Address has to be set.
type Config struct {
	Address          string            // Host and port.
	Key              string            // An API key or a token, sent with every call; without one, calls are anonymous.
	TLS              *tls.Config       // Nil connects in clear; an empty one trusts the authorities of the system.
	CallTimeout      time.Duration     // Of a call that answers once and whose context has no deadline; 30 s unless set.
	Attempts         int               // How often a call that is safe to repeat is made at most; 5 unless set.
	ConnectTimeout   time.Duration     // How long a run or a watch tries to reach a server before it begins; 15 s unless set.
	ReconnectTimeout time.Duration     // How long one that was cut off tries to resume; until its context ends unless set.
	Dial             []grpc.DialOption // Further options of the connection.
}

// Client has the methods of all services. Errors of calls are of type *Error.
type Client struct {
	Services
	config     Config
	connection *grpc.ClientConn
}

// Connect makes a client. It does not wait for the server: the first call does.
func Connect(config Config) (*Client, error) {
	config.CallTimeout = cmp.Or(config.CallTimeout, 30*time.Second)
	config.ConnectTimeout = cmp.Or(config.ConnectTimeout, 15*time.Second)
	config.Attempts = cmp.Or(config.Attempts, 5)
	client, transport := &Client{config: config}, insecure.NewCredentials()
	if config.TLS != nil {
		transport = credentials.NewTLS(config.TLS)
	}
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(transport),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 20 * time.Second, Timeout: 10 * time.Second}),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           grpcbackoff.Config{BaseDelay: minDelay, Multiplier: 2, Jitter: 0.2, MaxDelay: maxDelay},
			MinConnectTimeout: 10 * time.Second,
		}),
		grpc.WithChainUnaryInterceptor(client.callOnce),
		grpc.WithChainStreamInterceptor(openStream),
	}
	if config.Key != "" {
		options = append(options, grpc.WithPerRPCCredentials(key(config.Key)))
	}
	connection, err := grpc.NewClient(config.Address, append(options, config.Dial...)...)
	if err != nil {
		return nil, err
	}
	client.connection, client.Services = connection, NewServices(connection)
	return client, nil
}

// Close ends the connection, and with it what is still called over it.
func (c *Client) Close() error { return c.connection.Close() }

type key string

func (k key) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(k)}, nil
}

func (key) RequireTransportSecurity() bool { return false } // Whether there is TLS is for Config to say.

// Error is why a call failed.
type Error struct {
	Code       codes.Code
	Message    string
	Reason     string // Such as "NOT_FOUND"; empty where the server did not say.
	Domain     string // Whose reason it is: "blobhub", or the type of a blob.
	Metadata   map[string]string
	Violations []*errdetails.BadRequest_FieldViolation
	RetryAfter time.Duration // How long the server says to wait; zero where it does not.
	status     *status.Status
}

// Error says the reason, the message, and those violations that the message does not mention.
func (e *Error) Error() string {
	text := cmp.Or(e.Reason, e.Code.String()) + ": " + e.Message
	for _, violation := range e.Violations {
		if !strings.Contains(e.Message, violation.GetDescription()) {
			text += "; " + strings.TrimPrefix(violation.GetField()+": ", ": ") + violation.GetDescription()
		}
	}
	return text
}

// ErrorReason is the reason as a value of the contract; unspecified where it is a type's own.
func (e *Error) ErrorReason() pb.ErrorReason {
	if e.Domain != "blobhub" {
		return pb.ErrorReason_ERROR_REASON_UNSPECIFIED
	}
	return pb.ErrorReason(pb.ErrorReason_value["ERROR_REASON_"+e.Reason])
}

// Temporary tells whether the same may succeed a little later.
func (e *Error) Temporary() bool {
	return e.Code == codes.Unavailable || e.Code == codes.DeadlineExceeded || e.Code == codes.ResourceExhausted && e.RetryAfter > 0
}

// GRPCStatus is for status.FromError.
func (e *Error) GRPCStatus() *status.Status { return e.status }

// Is holds for the errors of contexts that have ended.
func (e *Error) Is(target error) bool {
	return target == context.Canceled && e.Code == codes.Canceled || target == context.DeadlineExceeded && e.Code == codes.DeadlineExceeded
}

func typed(err error) error {
	said, ok := status.FromError(err)
	if known := new(Error); err == nil || !ok || errors.As(err, &known) {
		return err
	}
	made := &Error{Code: said.Code(), Message: said.Message(), status: said}
	for _, detail := range said.Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			made.Reason, made.Domain, made.Metadata = detail.GetReason(), detail.GetDomain(), detail.GetMetadata()
		case *errdetails.BadRequest:
			made.Violations = detail.GetFieldViolations()
		case *errdetails.RetryInfo:
			made.RetryAfter = detail.GetRetryDelay().AsDuration()
		}
	}
	return made
}

// callOnce makes a call that answers once: with a deadline, and again where that is safe.
func (c *Client) callOnce(ctx context.Context, method string, request, answer any, connection *grpc.ClientConn, invoke grpc.UnaryInvoker, options ...grpc.CallOption) error {
	if _, bounded := ctx.Deadline(); !bounded {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.config.CallTimeout)
		defer cancel()
	}
	request, safe := repeatable(method, request)
	for again := (retries{left: c.config.Attempts}); ; {
		err := typed(invoke(ctx, method, request, answer, connection, options...))
		if err == nil || !safe || !again.wait(ctx, err) {
			return err
		}
	}
}

// repeatable tells whether a call may be made again. A change gets a `request_id` for that, unless it has one.
func repeatable(method string, request any) (any, bool) {
	name := protoreflect.FullName(strings.ReplaceAll(strings.TrimPrefix(method, "/"), "/", "."))
	found, _ := protoregistry.GlobalFiles.FindDescriptorByName(name)
	declared, known := found.(protoreflect.MethodDescriptor)
	message, isMessage := request.(proto.Message)
	if !known || !isMessage {
		return request, false
	}
	level := declared.Options().(*descriptorpb.MethodOptions).GetIdempotencyLevel()
	field := declared.Input().Fields().ByName("request_id")
	if level == descriptorpb.MethodOptions_NO_SIDE_EFFECTS || field == nil {
		return request, level == descriptorpb.MethodOptions_NO_SIDE_EFFECTS
	}
	if message.ProtoReflect().Get(field).String() != "" {
		return request, true
	}
	if declared.Output().Fields().ByName("key") != nil {
		return request, false // A new key is shown once: the answer to a repeated call would have none.
	}
	sent := proto.Clone(message)
	sent.ProtoReflect().Set(field, protoreflect.ValueOfString(newID()))
	return sent, true
}

type retries struct {
	delay time.Duration
	left  int // Attempts that may still be made, this one included; no bound where it is negative.
}

// wait sleeps before the next attempt. It answers false where there is to be none.
func (r *retries) wait(ctx context.Context, err error) bool {
	failed := new(Error)
	if r.left--; r.left == 0 || !errors.As(err, &failed) || !failed.Temporary() {
		return false
	}
	r.delay = min(max(r.delay*2, minDelay), maxDelay)
	delay := cmp.Or(failed.RetryAfter, time.Duration(float64(r.delay)*(0.5+mathrand.Float64()/2)))
	if deadline, bounded := ctx.Deadline(); bounded && time.Until(deadline) < delay {
		return false
	}
	select {
	case <-ctx.Done():
		return false
	case <-time.After(delay):
		return true
	}
}

func openStream(ctx context.Context, about *grpc.StreamDesc, connection *grpc.ClientConn, method string, open grpc.Streamer, options ...grpc.CallOption) (grpc.ClientStream, error) {
	stream, err := open(ctx, about, connection, method, options...)
	return typedStream{stream}, typed(err)
}

type typedStream struct{ grpc.ClientStream }

func (s typedStream) SendMsg(message any) error { return typed(s.ClientStream.SendMsg(message)) }
func (s typedStream) RecvMsg(message any) error { return typed(s.ClientStream.RecvMsg(message)) }

// Page yields every item of a List method, page after page.
func Page[Request proto.Message, Answer interface{ GetNextPageToken() string }, Item any](
	ctx context.Context, list func(context.Context, Request, ...grpc.CallOption) (Answer, error), request Request, items func(Answer) []Item,
) iter.Seq2[Item, error] {
	return func(yield func(Item, error) bool) {
		for asked := request; ; {
			answer, err := list(ctx, asked)
			if err != nil {
				yield(*new(Item), err)
				return
			}
			for _, item := range items(answer) {
				if !yield(item, nil) {
					return
				}
			}
			if answer.GetNextPageToken() == "" {
				return
			}
			asked = with(request, "page_token", answer.GetNextPageToken())
		}
	}
}

// Watch yields what a Watch method streams. A stream that breaks is resumed after the last item, for as long as Config says.
func Watch[Request, Item proto.Message, Message any](
	ctx context.Context, c *Client, watch func(context.Context, Request, ...grpc.CallOption) (grpc.ServerStreamingClient[Message], error),
	request Request, items func(*Message) []Item,
) iter.Seq2[Item, error] {
	after := request.ProtoReflect().Descriptor().Fields().ByName("after_sequence")
	for _, name := range []protoreflect.Name{"after_session_sequence", "after_execution_sequence"} {
		after = cmp.Or(after, request.ProtoReflect().Descriptor().Fields().ByName(name))
	}
	number := strings.TrimPrefix(string(after.Name()), "after_")
	return resume(ctx, c, number, request.ProtoReflect().Get(after).Int(), func(ctx context.Context, seen int64) (func() ([]Item, error), error) {
		return receive(items)(watch(ctx, with(request, after.Name(), seen)))
	})
}

// Run starts an execution and yields its events until it has ended, also across interruptions. It starts one, however often it has to
// be asked.
func (c *Client) Run(ctx context.Context, request *pb.RunExecutionRequest) iter.Seq2[*pb.Event, error] {
	request = with(request, "request_id", cmp.Or(request.GetRequestId(), newID()))
	execution := ""
	return resume(ctx, c, "execution_sequence", 0, func(ctx context.Context, seen int64) (func() ([]*pb.Event, error), error) {
		if seen > 0 {
			asked := &pb.WatchExecutionRequest{Execution: execution, AfterExecutionSequence: seen}
			return receive((*pb.WatchExecutionResponse).GetEvents)(c.WatchExecution(ctx, asked))
		}
		return receive(func(message *pb.RunExecutionResponse) []*pb.Event {
			execution = cmp.Or(execution, message.GetExecution().GetId())
			return message.GetEvents()
		})(c.RunExecution(ctx, request))
	})
}

// receive turns a stream, or the failure to open one, into a function that answers the items of its next message.
func receive[Message, Item any](items func(*Message) []Item) func(grpc.ServerStreamingClient[Message], error) (func() ([]Item, error), error) {
	return func(stream grpc.ServerStreamingClient[Message], err error) (func() ([]Item, error), error) {
		return func() ([]Item, error) {
			message, err := stream.Recv()
			return items(message), err
		}, err
	}
}

// resume yields the items of a stream, and opens it anew after the last one when it breaks.
func resume[Item proto.Message](
	ctx context.Context, c *Client, number string, begin int64, open func(context.Context, int64) (func() ([]Item, error), error),
) iter.Seq2[Item, error] {
	return func(yield func(Item, error) bool) {
		after, again, heard := begin, retries{left: -1}, time.Now()
		err := c.reach(ctx)
		for reached := err == nil; reached; reached = again.wait(ctx, err) {
			var left bool
			left, err = follow(ctx, open, number, &after, func(item Item) bool {
				again.delay, heard = 0, time.Now()
				return yield(item, nil)
			})
			if left || err == io.EOF {
				return
			}
			if limit := c.config.ReconnectTimeout; limit > 0 && time.Since(heard) > limit {
				err = fmt.Errorf("no server answers at %s any more: %w", c.config.Address, err)
				break
			}
		}
		yield(*new(Item), cmp.Or(ctx.Err(), err))
	}
}

// follow yields the items of one stream until it ends, which is an error, or is left.
func follow[Item proto.Message](
	ctx context.Context, open func(context.Context, int64) (func() ([]Item, error), error), number string, after *int64, yield func(Item) bool,
) (left bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // Leaving the loop ends the call.
	next, err := open(ctx, *after)
	for err == nil {
		var items []Item
		items, err = next()
		for _, item := range items {
			fields := item.ProtoReflect()
			found := fields.Get(fields.Descriptor().Fields().ByName(protoreflect.Name(number))).Int()
			if found <= *after || number != "sequence" && found != *after+1 { // Only a `sequence` may have gaps.
				return false, fmt.Errorf("%s %d came after %d, which is a bug of the server", number, found, *after)
			}
			if *after = found; !yield(item) {
				return true, nil
			}
		}
	}
	return false, err
}

// reach waits until a server answers.
func (c *Client) reach(ctx context.Context) error {
	within, cancel := context.WithTimeout(ctx, c.config.ConnectTimeout)
	defer cancel()
	for state := c.connection.GetState(); state != connectivity.Ready; state = c.connection.GetState() {
		c.connection.Connect()
		if !c.connection.WaitForStateChange(within, state) {
			hint := "does it ask for TLS?"
			if c.config.TLS != nil {
				hint = "does it speak TLS, with a certificate that is trusted?"
			}
			return typed(status.Errorf(codes.Unavailable, "no server answers at %s within %s; is one running there, and %s",
				c.config.Address, c.config.ConnectTimeout, hint))
		}
	}
	return nil
}

// with is a copy of a message with a field set.
func with[Request proto.Message](request Request, field protoreflect.Name, value any) Request {
	made := proto.CloneOf(request)
	made.ProtoReflect().Set(made.ProtoReflect().Descriptor().Fields().ByName(field), protoreflect.ValueOf(value))
	return made
}

// newID is a random UUID.
func newID() string {
	var b [16]byte
	rand.Read(b[:]) // It never fails, or ends the program.
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
