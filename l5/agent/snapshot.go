package agent

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/zhiyun-ops/zhiyun/l5/l5pb"
)

// magic starts every snapshot file, and names its version.
var magic = []byte("zhiyun-l5-snapshot 1\n")

// ErrSnapshot says that a snapshot file is of no use: cut short, changed or of another kind.
var ErrSnapshot = errors.New("l5/agent: not a whole snapshot file; remove it, the agent writes a new one")

// FormatSnapshot returns the content of a snapshot file: the magic line, the SHA-256 of the rest, and state.
func FormatSnapshot(state *l5pb.AgentState) ([]byte, error) {
	payload, err := proto.Marshal(state)
	if err != nil {
		return nil, fmt.Errorf("l5/agent: encode the snapshot: %w", err)
	}
	sum := sha256.Sum256(payload)
	return bytes.Join([][]byte{magic, sum[:], payload}, nil), nil
}

// ParseSnapshot is the reverse of FormatSnapshot. Any content that FormatSnapshot did not write is ErrSnapshot.
func ParseSnapshot(data []byte) (*l5pb.AgentState, error) {
	rest, ok := bytes.CutPrefix(data, magic)
	if !ok || len(rest) < sha256.Size {
		return nil, fmt.Errorf("%w (no header)", ErrSnapshot)
	}
	payload := rest[sha256.Size:]
	if sha256.Sum256(payload) != [sha256.Size]byte(rest[:sha256.Size]) {
		return nil, fmt.Errorf("%w (wrong checksum)", ErrSnapshot)
	}
	state := &l5pb.AgentState{}
	if err := proto.Unmarshal(payload, state); err != nil {
		return nil, fmt.Errorf("%w (%w)", ErrSnapshot, err)
	}
	return state, nil
}
