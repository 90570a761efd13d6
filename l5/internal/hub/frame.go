package hub

import (
	"fmt"
	"sync"

	"google.golang.org/protobuf/proto"

	"github.com/zhiyun-ops/zhiyun/l5/l5pb"
)

// Frame is one message to subscribers, encoded once however many of them get it.
type Frame struct {
	encoded *l5pb.WatchResponse
	decode  sync.Once
	message *l5pb.WatchResponse // set by newFrame, or by decode
}

// newFrame encodes message.
func newFrame(message *l5pb.WatchResponse) (*Frame, error) {
	data, err := proto.Marshal(message)
	if err != nil {
		return nil, fmt.Errorf("encode a frame: %w", err)
	}
	f := frameOf(data)
	f.message = message
	return f, nil
}

// frameOf makes a frame of an encoded message. The encoded form is an empty message that carries the bytes as fields
// unknown to it: encoding that one again is a copy.
func frameOf(data []byte) *Frame {
	encoded := &l5pb.WatchResponse{}
	encoded.ProtoReflect().SetUnknown(data)
	return &Frame{encoded: encoded}
}

// Message returns the message; it is shared and not to be changed.
func (f *Frame) Message() *l5pb.WatchResponse {
	f.decode.Do(func() {
		if f.message == nil {
			f.message = &l5pb.WatchResponse{}
			// What a source hands in decodes; if it did not, an empty message, which readers skip, is all there is to say.
			_ = proto.Unmarshal(f.encoded.ProtoReflect().GetUnknown(), f.message)
		}
	})
	return f.message
}

// Encoded returns a message with the same binary encoding as Message, at the cost of a copy. It has no JSON form.
func (f *Frame) Encoded() *l5pb.WatchResponse { return f.encoded }
