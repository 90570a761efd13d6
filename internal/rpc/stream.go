package rpc

import (
	"encoding/json"
	"fmt"
	"io"

	"connectrpc.com/connect"

	pb "github.com/zhiyun-ops/zhiyun/internal/control/controlpb"
)

// chunks is the content of a stream of messages.
type chunks struct {
	next func() ([]byte, error) // io.EOF at the end
	rest []byte
}

func (c *chunks) Read(p []byte) (int, error) {
	for len(c.rest) == 0 {
		var err error
		if c.rest, err = c.next(); err != nil {
			return 0, err
		}
	}
	n := copy(p, c.rest)
	c.rest = c.rest[n:]
	return n, nil
}

// Received reads a client's stream, the first message of which was read already.
func Received[T any](first []byte, stream *connect.ClientStream[T], chunk func(*T) []byte) io.Reader {
	return &chunks{rest: first, next: func() ([]byte, error) {
		if stream.Receive() {
			return chunk(stream.Msg()), nil
		}
		if err := stream.Err(); err != nil {
			return nil, err
		}
		return nil, io.EOF
	}}
}

// FirstMessage is the error of a stream that brought none.
func FirstMessage(err error) error {
	if err != nil {
		return err
	}
	return Invalid("stream", "empty", "send a first message that names what is pushed")
}

// SendLine sends one document of a stream.
func SendLine(stream *connect.ServerStream[pb.JSON], document any) error {
	encoded, err := json.Marshal(document)
	if err != nil {
		return fmt.Errorf("control: encode the answer: %w", err)
	}
	return stream.Send(&pb.JSON{Json: encoded})
}

// MaxMessage bounds one message, in bytes.
const MaxMessage = 32 << 20

// ChunkSize is how much of a content travels in one message.
const ChunkSize = 256 << 10
