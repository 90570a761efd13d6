package server_test

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"github.com/zhiyun-ops/zhiyun/internal/store"
	"github.com/zhiyun-ops/zhiyun/l5"
	"github.com/zhiyun-ops/zhiyun/l5/l5pb"
	"github.com/zhiyun-ops/zhiyun/l5/l5test"
	"github.com/zhiyun-ops/zhiyun/l5/server"
)

var full = l5.Instance{
	Service: "shop.cart", Addr: "[2001:db8::7]:8080", Device: "device-1", Module: "shop", Weight: 250, Share: 10, State: l5.StateDraining,
	Labels: map[string]string{"version": "2", "zone": "é"}, Owner: "device-1", Suspect: true,
}

func TestRowForms(t *testing.T) {
	t.Parallel()
	op, err := server.Encode(full)
	if err != nil {
		t.Fatal(err)
	}
	plain, err := json.Marshal(full)
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string][]byte{"as written": op.Value, "in the first form, JSON": plain} {
		got, ok := server.Decode(store.Record{Key: op.Key, Value: value, Revision: 1})
		if diff := cmp.Diff(full, got); !ok || diff != "" {
			t.Errorf("%s: %v, (-want +got):\n%s", name, ok, diff)
		}
	}
	if len(op.Value)*2 > len(plain) {
		t.Errorf("%d bytes, JSON takes %d", len(op.Value), len(plain))
	}
}

// A store that an earlier version wrote is served, and so is a service of which one record is broken.
func TestEarlierRecordsAreServed(t *testing.T) {
	t.Parallel()
	s := l5test.NewServer(t, nil)
	s.Stop()
	_, err := s.Store.Commit(within(t),
		store.Put("instance/a/127.0.0.1:1", []byte(`{"service":"a","addr":"127.0.0.1:1","weight":7,"share":30,"state":"up"}`)),
		store.Put("instance/a/127.0.0.1:2", []byte("\x0a\xff")), store.Put("instance/a/127.0.0.1:3", []byte("{")))
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	next := watch(t, wire(t, s.Target()), 0, "")
	next() // the verdict
	got := next().GetSnapshot().GetInstances()
	if len(got) != 1 || got[0].GetAddr() != "127.0.0.1:1" || got[0].GetWeight() != 7 || got[0].GetShare() != 30 {
		t.Errorf("pushed %v", got)
	}
}

// FuzzRow: whatever stands in the store, what is pushed of it decodes.
func FuzzRow(f *testing.F) {
	op, err := server.Encode(full)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(op.Value)
	f.Add([]byte(`{"share":1,"state":"draining"}`))
	f.Add([]byte("\x0a\x01x\x3a\x03\x0a\x01\xff"))
	f.Fuzz(func(t *testing.T, value []byte) {
		wire, ok := server.Wire(store.Record{Key: op.Key, Value: bytes.Clone(value), Revision: 1})
		if !ok {
			return
		}
		var got l5pb.Instance
		if err := proto.Unmarshal(wire, &got); err != nil {
			t.Fatalf("%q is pushed as %q: %v", value, wire, err)
		}
		if got.GetAddr() != full.Addr || got.GetService() != "" {
			t.Errorf("%q is pushed as %v", value, &got)
		}
	})
}
