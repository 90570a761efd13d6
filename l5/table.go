package l5

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/zhiyun-ops/zhiyun/l5/internal/table"
	"github.com/zhiyun-ops/zhiyun/l5/l5pb"
)

// Source says where the state of a service came from.
type Source uint8

const (
	// SourceNone is no source: nothing is known.
	SourceNone Source = iota
	// SourceStream is the name service, by its stream.
	SourceStream
	// SourceTable is the device's route table, which the agent wrote before it went away.
	SourceTable
)

// String returns "none", "stream" or "table".
func (s Source) String() string { return [...]string{"none", "stream", "table"}[s] }

// MarshalText implements encoding.TextMarshaler.
func (s Source) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *Source) UnmarshalText(text []byte) error {
	for *s = SourceNone; *s <= SourceTable; *s++ {
		if s.String() == string(text) {
			return nil
		}
	}
	return fmt.Errorf("l5: source %q: want none, stream or table", text)
}

// tableAfter is how long a first route waits for an agent that takes connections but does not answer.
const tableAfter = 100 * time.Millisecond

// tableOf returns where the agent at target keeps the route table; empty for a target that is no agent's.
func tableOf(target string) string {
	if path, ok := strings.CutPrefix(target, "unix://"); ok {
		return path + ".table"
	}
	return ""
}

// cold gives a service of which nothing is known the state that the device's table holds, unless the name service
// answers: its state is newer, and waiting for it means that what it has acknowledged is seen. That it cannot be reached is
// known at once.
func (s *service) cold(ctx context.Context) {
	c := s.client
	if c.config.Table == "" {
		return
	}
	s.mu.Lock()
	changed := s.changed
	s.mu.Unlock()
	if s.picks.Load() != nil || !c.awaited(ctx, changed) {
		return
	}
	found, err := table.Find(table.For(c.config.Table, os.Geteuid()), c.config.Caller, s.name)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, table.ErrUnknown) {
			c.config.Logger.Error("l5: the device's route table is of no use; waiting for the name service", "service", s.name, "error", err)
		}
		return
	}
	c.placed(found.Place)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.source != SourceNone || !c.link.Seed(found.View) {
		return // the name service was faster
	}
	s.source, s.confirmed = SourceTable, found.Confirmed
	settings := &l5pb.Settings{}
	if s.guide.settings == nil && proto.Unmarshal(found.Settings, settings) == nil && settings.GetService() != "" {
		c.link.SeedSettings(settings)
		s.instruct(settings)
	}
	s.set(found.View, c.config.now())
	c.config.Logger.Warn("l5: the name service does not answer; routing by the device's table", "service", s.name, "age", time.Since(found.Confirmed).Round(time.Second))
}

// placed takes where the device is from the table, unless the name service has said so.
func (c *Client) placed(place []byte) {
	told := &l5pb.Place{}
	if len(place) > 0 && c.place.Load() == nil && proto.Unmarshal(place, told) == nil {
		c.onPlace(told)
	}
}

// awaited waits for changed and reports whether that was in vain: nobody listens, or nobody answers for tableAfter.
func (c *Client) awaited(ctx context.Context, changed <-chan struct{}) bool {
	if path, ok := strings.CutPrefix(c.config.Target, "unix://"); ok {
		conn, err := net.Dial("unix", path)
		if err != nil {
			return ctx.Err() == nil
		}
		conn.Close()
	}
	timer := time.NewTimer(tableAfter)
	defer timer.Stop()
	select {
	case <-changed:
		return false
	case <-ctx.Done():
		return false
	case <-c.link.Down():
	case <-timer.C:
	}
	return true
}

// age is how long ago the state was last known to be right. Callers hold mu.
func (s *service) age(now time.Time) time.Duration {
	switch s.source {
	case SourceTable:
		return max(now.Sub(s.confirmed), 0)
	case SourceStream:
		if heard, silent := s.client.link.Heard(); silent {
			return max(now.Sub(heard), 0)
		}
	}
	return 0
}
