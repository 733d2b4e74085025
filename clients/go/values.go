package blobhub

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	pb "github.com/blobhub/blobhub/clients/go/blobhub/v1"
	"google.golang.org/protobuf/types/known/structpb"
)

// maxExact is the largest integer that no other one is rounded to as a float64.
const maxExact = 1<<53 - 1

// ExecutionError is why an execution did not complete.
type ExecutionError struct {
	ExecutionID, Reason, Message string
	Line                         int32 // Of the script or expression; zero where it is not about one.
}

func (e *ExecutionError) Error() string { return e.Reason + ": " + e.Message }

// Result runs a definition on plain Go values and answers what it gives as one (see Plain). An execution that does not complete is an
// *ExecutionError.
func (c *Client) Result(ctx context.Context, session, definition string, inputs map[string]any) (any, error) {
	spec := &pb.ExecutionSpec{Definition: definition}
	for alias, value := range inputs {
		input, err := Input(alias, value)
		if err != nil {
			return nil, fmt.Errorf("input %s: %w", alias, err)
		}
		spec.InputData = append(spec.InputData, input)
	}
	for event, err := range c.Run(ctx, &pb.RunExecutionRequest{Session: session, Spec: spec}) {
		switch payload := event.GetPayload().(type) {
		case *pb.Event_FlowExited:
			return Plain(payload.FlowExited.GetResult(), payload.FlowExited.GetResultJson())
		case *pb.Event_FlowError:
			failure := payload.FlowError.GetFailure()
			return nil, &ExecutionError{event.GetExecutionId(), failure.GetReason(), failure.GetMessage(), failure.GetLine()}
		case *pb.Event_FlowStopped:
			return nil, &ExecutionError{event.GetExecutionId(), "STOPPED", "the execution was stopped", 0}
		}
		if err != nil {
			return nil, err
		}
	}
	return nil, errors.New("the stream of an execution ended before the execution")
}

// Input is a value for an execution, as what encoding/json makes of it; integers of 64 bits are exact.
func Input(alias string, value any) (*pb.ExecutionInput, error) {
	text, err := json.Marshal(exact(value))
	return &pb.ExecutionInput{Alias: alias, Form: &pb.ExecutionInput_ValueJson{ValueJson: string(text)}}, err
}

// exact spells floats that JSON would make integers of, which the server has no room for, or of which it would lose the sign.
func exact(value any) any {
	switch value := value.(type) {
	case float64:
		if math.Abs(value) >= 1<<63 || value == 0 && math.Signbit(value) {
			return json.Number(strconv.FormatFloat(value, 'e', -1, 64))
		}
	case []any:
		made := make([]any, len(value))
		for index, item := range value {
			made[index] = exact(item)
		}
		return made
	case map[string]any:
		made := make(map[string]any, len(value))
		for name, item := range value {
			made[name] = exact(item)
		}
		return made
	}
	return value
}

// Plain is a value of a message in plain Go: nil, bool, string, int64 (uint64 above its range), float64, []any or map[string]any.
// It is in one of two fields: as a Value, or as JSON text, which says what a Value cannot.
//
//	result, err := blobhub.Plain(execution.GetResult(), execution.GetResultJson())
func Plain(value *structpb.Value, text string) (any, error) {
	if text == "" {
		return plain(value.AsInterface()), nil
	}
	var made any
	decoder := json.NewDecoder(bytes.NewBufferString(text))
	decoder.UseNumber()
	err := decoder.Decode(&made)
	return plain(made), err
}

func plain(value any) any {
	switch value := value.(type) {
	case float64:
		if value == math.Trunc(value) && math.Abs(value) <= maxExact && (value != 0 || !math.Signbit(value)) {
			return int64(value)
		}
	case json.Number:
		if strings.ContainsAny(string(value), ".eE") {
			number, _ := value.Float64()
			return number
		}
		if number, err := value.Int64(); err == nil {
			return number
		}
		number, _ := strconv.ParseUint(string(value), 10, 64) // The server has no larger ones.
		return number
	case []any:
		for index, item := range value {
			value[index] = plain(item)
		}
	case map[string]any:
		for name, item := range value {
			value[name] = plain(item)
		}
	}
	return value
}
