package flow

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// Histories that were written before flows had blocks fold to what they said then.
func TestOldHistories(t *testing.T) {
	t.Parallel()
	paths, err := filepath.Glob("testdata/history/*.yaml")
	if err != nil || len(paths) == 0 {
		t.Fatal(paths, err)
	}
	for _, path := range paths {
		name := strings.TrimSuffix(filepath.Base(path), ".yaml")
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			source, err := os.ReadFile("testdata/history/" + name + ".yaml")
			if err != nil {
				t.Fatal(err)
			}
			data, err := os.ReadFile("testdata/history/" + name + ".jsonl")
			if err != nil {
				t.Fatal(err)
			}
			want, err := os.ReadFile("testdata/history/" + name + ".golden.json")
			if err != nil {
				t.Fatal(err)
			}
			d, err := Parse(source)
			if err != nil {
				t.Fatal(err)
			}
			d.Version = 1
			var records []Record
			for line := range bytes.Lines(data) {
				var r struct {
					Seq  int64
					At   time.Time
					Body json.RawMessage
				}
				if err := json.Unmarshal(line, &r); err != nil {
					t.Fatal(err)
				}
				records = append(records, Record{Seq: r.Seq, At: r.At, Body: r.Body})
			}
			x, found := refold(func(int) (*Definition, error) { return &d, nil }, "x", records)
			if len(found) > 0 {
				t.Fatal(found)
			}
			x.Wake = x.wake()
			got, err := json.MarshalIndent(x, "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), string(got)+"\n"); diff != "" {
				t.Error(diff)
			}
		})
	}
}
