package view_test

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"pgregory.net/rapid"

	"github.com/zhiyun-ops/zhiyun/l5/internal/view"
	"github.com/zhiyun-ops/zhiyun/l5/l5pb"
)

func TestAdvance(t *testing.T) {
	t.Parallel()
	base := view.Of(&l5pb.Snapshot{Service: "a", Epoch: "e", Revision: 5, Instances: []*l5pb.Instance{
		{Addr: "2"}, {Addr: "1"}, {Addr: "2", Weight: 7}, {Addr: ""},
	}})
	tests := []struct {
		name  string
		delta *l5pb.Delta
		want  []string
		at    int64
		gap   bool
	}{
		{"put and remove", &l5pb.Delta{Epoch: "e", Previous: 5, Revision: 6, Put: []*l5pb.Instance{{Addr: "3"}}, Remove: []string{"1"}}, []string{"2", "3"}, 6, false},
		{"known already", &l5pb.Delta{Epoch: "e", Previous: 3, Revision: 5, Remove: []string{"1"}}, []string{"1", "2"}, 5, false},
		{"gap", &l5pb.Delta{Epoch: "e", Previous: 6, Revision: 7, Remove: []string{"1"}}, []string{"1", "2"}, 5, true},
		{"other history", &l5pb.Delta{Epoch: "f", Previous: 5, Revision: 6, Remove: []string{"1"}}, []string{"1", "2"}, 5, true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			got, err := base.Advance(test.delta)
			if errors.Is(err, view.ErrGap) != test.gap {
				t.Errorf("gap: %v", err)
			}
			var addrs []string
			for _, i := range got.Instances {
				addrs = append(addrs, i.GetAddr())
			}
			if diff := cmp.Diff(test.want, addrs); diff != "" || got.Revision != test.at {
				t.Errorf("at %d:\n%s", got.Revision, diff)
			}
			if got.Find("2").GetWeight() != 7 || got.Find("9") != nil {
				t.Errorf("found %v and %v", got.Find("2"), got.Find("9"))
			}
		})
	}
}

// Diff is the delta that Advance takes from one state to the other.
func TestDiffLeadsThere(t *testing.T) {
	t.Parallel()
	instances := rapid.SliceOf(rapid.Custom(func(t *rapid.T) *l5pb.Instance {
		return &l5pb.Instance{Addr: rapid.StringMatching("[a-f]").Draw(t, "addr"), Weight: rapid.Uint32Range(0, 2).Draw(t, "weight")}
	}))
	rapid.Check(t, func(t *rapid.T) {
		from := view.Of(&l5pb.Snapshot{Service: "a", Epoch: "e", Revision: 1, Instances: instances.Draw(t, "from")})
		to := view.Of(&l5pb.Snapshot{Service: "a", Epoch: "e", Revision: 2, Instances: instances.Draw(t, "to")})
		got, err := from.Advance(view.Diff(from, to))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(to, got, protocmp.Transform()); diff != "" {
			t.Fatal(diff)
		}
	})
}

// FuzzFrames feeds a watcher with frames as they may come from a peer that lies: it keeps addresses in order, each once,
// and never goes back within an epoch.
func FuzzFrames(f *testing.F) {
	seed := func(messages ...proto.Message) {
		var data []byte
		for _, m := range messages {
			encoded, err := proto.Marshal(m)
			if err != nil {
				f.Fatal(err)
			}
			data = append(append(data, byte(len(encoded))), encoded...)
		}
		f.Add(data)
	}
	seed(&l5pb.WatchResponse{Kind: &l5pb.WatchResponse_Snapshot{Snapshot: &l5pb.Snapshot{Epoch: "e", Revision: 3, Instances: []*l5pb.Instance{{Addr: "b"}, {Addr: "a"}}}}},
		&l5pb.WatchResponse{Kind: &l5pb.WatchResponse_Delta{Delta: &l5pb.Delta{Epoch: "e", Previous: 3, Revision: 4, Put: []*l5pb.Instance{{Addr: "c"}}, Remove: []string{"a"}}}})
	f.Fuzz(func(t *testing.T, data []byte) {
		var v view.View
		for len(data) > 0 {
			n := min(int(data[0]), len(data)-1)
			frame := &l5pb.WatchResponse{}
			err := proto.Unmarshal(data[1:1+n], frame)
			data = data[1+n:]
			if err != nil {
				continue
			}
			next := v
			switch kind := frame.GetKind().(type) {
			case *l5pb.WatchResponse_Snapshot:
				if v.Supersedes(kind.Snapshot) {
					next = view.Of(kind.Snapshot)
				}
			case *l5pb.WatchResponse_Delta:
				next, _ = v.Advance(kind.Delta)
			}
			if next.Epoch == v.Epoch && next.Revision < v.Revision {
				t.Fatalf("went back from %d to %d", v.Revision, next.Revision)
			}
			for i := 1; i < len(next.Instances); i++ {
				if next.Instances[i-1].GetAddr() >= next.Instances[i].GetAddr() {
					t.Fatalf("out of order: %v", next.Instances)
				}
			}
			v = next
		}
	})
}
