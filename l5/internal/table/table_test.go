package table_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"pgregory.net/rapid"

	"github.com/zhiyun-ops/zhiyun/l5/internal/table"
	"github.com/zhiyun-ops/zhiyun/l5/internal/view"
	"github.com/zhiyun-ops/zhiyun/l5/l5pb"
)

// entry makes one service of instances.
func entry(service string, callers []string, instances ...*l5pb.Instance) table.Entry {
	v := view.Of(&l5pb.Snapshot{Service: service, Epoch: "e1", Revision: 7, Instances: instances})
	return table.Entry{View: v, Callers: callers}
}

// files encodes entries, by segment.
func files(t testing.TB, entries ...table.Entry) map[int][]byte {
	t.Helper()
	by := make(map[int][]table.Entry)
	for _, e := range entries {
		at := table.SegmentOf(e.View.Service)
		by[at] = append(by[at], e)
	}
	out := make(map[int][]byte)
	for segment, entries := range by {
		content, err := table.Encode(table.Head{Segment: segment, Written: time.Unix(1, 0)}, entries)
		if err != nil {
			t.Fatal(err)
		}
		out[segment] = content
	}
	return out
}

// strange is an instance with everything that has no usual form, and a field that this version does not know.
func strange() *l5pb.Instance {
	p := &l5pb.Instance{
		Addr: "db.internal:5432", Device: "d", Module: "m", Weight: 1 << 31, Share: proto.Uint32(300), State: 9,
		Labels: map[string]string{"site": "sh-03", "": "empty"}, Suspect: true, Service: "named", Owner: "d",
	}
	p.ProtoReflect().SetUnknown([]byte{0xfa, 0x07, 3, 'n', 'e', 'w'}) // field 127
	return p
}

func TestRoundTrip(t *testing.T) {
	t.Parallel()
	want := entry("a", []string{"shop.web", "shop.cart"},
		&l5pb.Instance{Addr: "10.0.0.7:80"}, &l5pb.Instance{Addr: "[2001:db8::1]:443", Share: proto.Uint32(0), State: l5pb.State_STATE_DRAINING},
		&l5pb.Instance{Addr: "[::ffff:10.0.0.1]:1"}, &l5pb.Instance{Addr: "010.0.0.1:1"}, &l5pb.Instance{Addr: "10.0.0.1:080"},
		&l5pb.Instance{Addr: "[fe80::1%eth0]:1"}, &l5pb.Instance{Addr: "10.0.0.8:80", Share: proto.Uint32(254)},
		&l5pb.Instance{Addr: "10.0.0.9:80", Share: proto.Uint32(100), State: l5pb.State_STATE_UP, Labels: map[string]string{"site": "x"}}, strange())
	want.Settings = []byte("{}")
	for _, content := range files(t, want) {
		s, err := table.Parse(content, table.SegmentOf("a"))
		if err != nil {
			t.Fatal(err)
		}
		got, err := s.Find("shop.cart", "a")
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got, protocmp.Transform(), cmpopts.EquateEmpty()); diff != "" {
			t.Error(diff)
		}
		if _, err := s.Find("stranger", "a"); !errors.Is(err, table.ErrUnknown) {
			t.Errorf("a caller without a grant: %v", err)
		}
		if _, err := s.Find("shop.cart", "b"); !errors.Is(err, table.ErrUnknown) {
			t.Errorf("a service that is not there: %v", err)
		}
		if !s.Written().Equal(time.Unix(1, 0)) {
			t.Errorf("written at %v", s.Written())
		}
	}
}

// Whatever is put in is found again, and nothing else is.
func TestAnythingIsFound(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		names := rapid.SliceOfNDistinct(rapid.StringMatching(`[a-z]{1,3}(\.[a-z]{1,3})?`), 1, 40, rapid.ID).Draw(t, "names")
		var entries []table.Entry
		for _, name := range names {
			var instances []*l5pb.Instance
			for i := range rapid.IntRange(0, 5).Draw(t, "instances") {
				p := &l5pb.Instance{
					Addr:   fmt.Sprintf("%s:%d", rapid.SampledFrom([]string{"10.0.0.1", "[::1]", "host", "rubbish"}).Draw(t, "host"), i),
					Device: rapid.String().Draw(t, "device"), Weight: rapid.Uint32().Draw(t, "weight"),
					Labels: rapid.MapOfN(rapid.StringN(0, 4, -1), rapid.StringN(0, 4, -1), 0, 3).Draw(t, "labels"),
				}
				if rapid.Bool().Draw(t, "share given") {
					p.Share = proto.Uint32(rapid.Uint32Range(0, 300).Draw(t, "share"))
				}
				instances = append(instances, p)
			}
			entries = append(entries, entry(name, []string{"c"}, instances...))
		}
		by := make(map[int][]table.Entry)
		for _, e := range entries {
			at := table.SegmentOf(e.View.Service)
			by[at] = append(by[at], e)
		}
		for segment, held := range by {
			content, err := table.Encode(table.Head{Segment: segment, Written: time.Now()}, held)
			if err != nil {
				t.Skip(err) // a string that is no UTF-8 has no wire form
			}
			s, err := table.Parse(content, segment)
			if err != nil {
				t.Fatal(err)
			}
			n := 0
			for range s.All() {
				n++
			}
			if n != len(held) {
				t.Fatalf("%d services of %d", n, len(held))
			}
			for _, want := range held {
				got, err := s.Find("c", want.View.Service)
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(want, got, protocmp.Transform(), cmpopts.EquateEmpty()); diff != "" {
					t.Fatal(diff)
				}
			}
		}
	})
}

// Any byte changed, any cut, a foreign file and one of the future are refused.
func TestDamageIsRefused(t *testing.T) {
	t.Parallel()
	segment := table.SegmentOf("a")
	content := files(t, entry("a", []string{"c"}, &l5pb.Instance{Addr: "10.0.0.7:80"}, strange()))[segment]
	for i := range content {
		damaged := bytes.Clone(content)
		damaged[i] ^= 0x10
		if _, err := table.Parse(damaged, segment); !errors.Is(err, table.ErrDamaged) && !errors.Is(err, table.ErrVersion) {
			t.Fatalf("byte %d changed: %v", i, err)
		}
		if _, err := table.Parse(content[:i], segment); !errors.Is(err, table.ErrDamaged) {
			t.Fatalf("cut at byte %d: %v", i, err)
		}
	}
	if _, err := table.Parse(content, segment+1); !errors.Is(err, table.ErrDamaged) {
		t.Errorf("in the place of another segment: %v", err)
	}
	future := bytes.Clone(content)
	future[8] = 2
	if _, err := table.Parse(future, segment); !errors.Is(err, table.ErrVersion) {
		t.Errorf("of version 2: %v", err)
	}
}

func TestFolder(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	uid := os.Geteuid()
	folder, err := table.Make(dir, uid)
	if err != nil {
		t.Fatal(err)
	}
	a, b := entry("a", []string{"c"}, &l5pb.Instance{Addr: "10.0.0.7:80"}), entry("b", []string{"c"}, &l5pb.Instance{Addr: "[::1]:80"})
	if err := table.Write(folder, uid, files(t, a, b)); err != nil {
		t.Fatal(err)
	}
	found, err := table.Find(folder, "c", "a")
	if err != nil || found.View.Instances[0].GetAddr() != "10.0.0.7:80" {
		t.Fatalf("found %v, %v", found, err)
	}
	now := time.Now().Add(time.Hour).Truncate(time.Second)
	if err := table.Confirm(folder, now); err != nil {
		t.Fatal(err)
	}
	if found, err = table.Find(folder, "c", "b"); err != nil || !found.Confirmed.Equal(now) {
		t.Errorf("confirmed at %v, %v; want %v", found.Confirmed, err, now)
	}
	users, err := table.Users(dir)
	if err != nil || !slices.Equal(users, []int{uid}) {
		t.Errorf("users: %v, %v", users, err)
	}
	written, err := filepath.Glob(filepath.Join(folder, "*.routes"))
	if err != nil || len(written) != 2 {
		t.Fatalf("files: %v, %v", written, err)
	}
	for _, file := range written {
		if info, err := os.Stat(file); err != nil || info.Mode() != 0o400 {
			t.Errorf("%s: %v, %v", file, info.Mode(), err)
		}
	}
	// One file is damaged: it is refused by name, the other serves on.
	bad := filepath.Join(folder, fmt.Sprintf("%02x.routes", table.SegmentOf("a")))
	if err := errors.Join(os.Remove(bad), os.WriteFile(bad, []byte("zhiyunl5 but not the rest of it, and 52 bytes long at least"), 0o400)); err != nil {
		t.Fatal(err)
	}
	if _, err := table.Find(folder, "c", "a"); !errors.Is(err, table.ErrVersion) && !errors.Is(err, table.ErrDamaged) || !bytes.Contains([]byte(err.Error()), []byte(bad)) {
		t.Errorf("a damaged file: %v", err)
	}
	var loaded []string
	if err := table.Load(folder, uid, func(e table.Entry) { loaded = append(loaded, e.View.Service) }); err == nil || !slices.Equal(loaded, []string{"b"}) {
		t.Errorf("loaded %v, %v", loaded, err)
	}
	if err := table.Write(folder, uid, map[int][]byte{table.SegmentOf("b"): nil}); err != nil {
		t.Fatal(err)
	}
	if _, err := table.Find(folder, "c", "b"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a segment that was removed: %v", err)
	}
}

// A file cut short while it is mapped is an error, not the end of the process.
func TestCutWhileMapped(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "x")
	var many []*l5pb.Instance
	for i := range 2000 {
		many = append(many, &l5pb.Instance{Addr: fmt.Sprintf("10.0.0.1:%d", i+1), Device: fmt.Sprint("device-", i)})
	}
	segment := table.SegmentOf("a")
	if err := os.WriteFile(file, files(t, entry("a", nil, many...))[segment], 0o600); err != nil {
		t.Fatal(err)
	}
	err := table.Read(file, segment, func(s *table.Segment) error {
		if err := os.Truncate(file, 0); err != nil {
			t.Fatal(err)
		}
		for _, err := range s.All() {
			return err
		}
		return nil
	})
	if !errors.Is(err, table.ErrDamaged) {
		t.Errorf("got %v", err)
	}
}

func FuzzSegment(f *testing.F) {
	segment := table.SegmentOf("a")
	f.Add(files(f, entry("a", []string{"c"}, &l5pb.Instance{Addr: "10.0.0.7:80"}, &l5pb.Instance{Addr: "[::1]:1"}, strange()))[segment])
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) >= 52 { // what a file with a right header holds is fuzzed, too
			copy(data, "zhiyunl5\x01\x00")
			binary.LittleEndian.PutUint16(data[10:], uint16(segment))
			binary.LittleEndian.PutUint16(data[12:], table.Segments)
			binary.LittleEndian.PutUint32(data[36:], uint32(len(data)))
			binary.LittleEndian.PutUint32(data[16:], crc32.Checksum(data[20:], crc32.MakeTable(crc32.Castagnoli)))
		}
		s, err := table.Parse(data, segment)
		if err != nil {
			if !errors.Is(err, table.ErrDamaged) && !errors.Is(err, table.ErrVersion) {
				t.Errorf("an error of another kind: %v", err)
			}
			return
		}
		if _, err := s.Find("c", "a"); err != nil && !errors.Is(err, table.ErrDamaged) && !errors.Is(err, table.ErrUnknown) {
			t.Errorf("an error of another kind: %v", err)
		}
		for _, err := range s.All() {
			if err != nil && !errors.Is(err, table.ErrDamaged) {
				t.Errorf("an error of another kind: %v", err)
			}
		}
	})
}
