package hub

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/zhiyun-ops/zhiyun/l5/l5pb"
)

// Frame is one message to subscribers, encoded once however many of them get it.
type Frame struct {
	message *l5pb.WatchResponse
	encoded *l5pb.WatchResponse
}

// newFrame encodes message. The encoded form is an empty message that carries the bytes as fields unknown to it:
// encoding that one again is a copy.
func newFrame(message *l5pb.WatchResponse) (*Frame, error) {
	data, err := proto.Marshal(message)
	if err != nil {
		return nil, fmt.Errorf("encode a frame: %w", err)
	}
	encoded := &l5pb.WatchResponse{}
	encoded.ProtoReflect().SetUnknown(data)
	return &Frame{message: message, encoded: encoded}, nil
}

// Message returns the message; it is shared and not to be changed.
func (f *Frame) Message() *l5pb.WatchResponse { return f.message }

// Encoded returns a message with the same binary encoding as Message, at the cost of a copy. It has no JSON form.
func (f *Frame) Encoded() *l5pb.WatchResponse { return f.encoded }
