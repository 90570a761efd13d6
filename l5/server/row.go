package server

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/zhiyun-ops/zhiyun/internal/store"
	"github.com/zhiyun-ops/zhiyun/l5"
	"github.com/zhiyun-ops/zhiyun/l5/l5pb"
)

const (
	instancePrefix = "instance/"
	fencePrefix    = "fence/"
	epochKey       = "epoch"
)

// id names an instance. With an empty addr it names its service's record of removals.
type id struct{ service, addr string }

func (i id) key() string { return instancePrefix + i.service + "/" + i.addr }

// parseKey is the reverse of key; false for another kind of key.
func parseKey(key string) (id, bool) {
	rest, ok := strings.CutPrefix(key, instancePrefix)
	if !ok {
		return id{}, false
	}
	service, addr, ok := strings.Cut(rest, "/")
	return id{service, addr}, ok && service != ""
}

// row is one instance, decoded.
type row struct {
	l5.Instance
	revision int64 // of the commit that wrote it; 0: the store has it no more, see packed.kept
	kept     time.Time
}

// packed is one instance as the registry holds it: the bytes that stand in the store are those that go to subscribers.
type packed struct {
	addr     string
	wire     []byte // an l5pb.Instance without its service; never changed
	revision int64  // of the commit that wrote it
	// Since when the row is kept although it vanished from the store; zero: it is there.
	kept time.Time
}

// unpack decodes p, which is an instance of service.
func (p packed) unpack(service string) *row {
	var message l5pb.Instance
	if err := proto.Unmarshal(p.wire, &message); err != nil {
		return nil // pack has seen that it decodes
	}
	r := &row{Instance: l5.InstanceFromProto(&message), revision: p.revision, kept: p.kept}
	if !p.kept.IsZero() {
		r.revision = 0
	}
	r.Service, r.Addr = service, p.addr
	return r
}

// owner returns who owns p, as a string of its own.
func (p packed) owner() string { return string(field(p.wire, ownerField)) }

// The fields of l5pb.Instance that are read without decoding it.
const (
	addrField  protowire.Number = 1
	ownerField protowire.Number = 10
)

// field returns the bytes of a field of a well-formed message, nil if it has none.
func field(wire []byte, number protowire.Number) []byte {
	for len(wire) > 0 {
		n, kind, size := protowire.ConsumeTag(wire)
		if size < 0 {
			return nil
		}
		wire = wire[size:]
		if size = protowire.ConsumeFieldValue(n, kind, wire); size < 0 {
			return nil
		}
		if n == number && kind == protowire.BytesType {
			value, _ := protowire.ConsumeBytes(wire)
			return value
		}
		wire = wire[size:]
	}
	return nil
}

// pack makes a row of a record. A record in the store's first form, which was JSON, is translated.
func pack(name id, record store.Record) (packed, error) {
	p := packed{addr: strings.Clone(name.addr), wire: record.Value, revision: record.Revision} // not the whole key
	if plain(record.Value, name.addr) {
		return p, nil
	}
	var err error
	message := new(l5pb.Instance)
	if len(record.Value) > 0 && record.Value[0] == '{' {
		var instance l5.Instance
		err = json.Unmarshal(record.Value, &instance)
		message = instance.Proto()
	} else {
		err = proto.Unmarshal(record.Value, message)
	}
	if err != nil {
		return p, fmt.Errorf("l5/server: record %q: %w", record.Key, err)
	}
	message.Service, message.Addr = "", name.addr
	if p.wire, err = proto.Marshal(message); err != nil {
		return p, fmt.Errorf("l5/server: record %q: %w", record.Key, err)
	}
	return p, nil
}

// plain reports whether wire is a message that every reader decodes, by the name of addr and without a service: one that
// subscribers can be given as it stands. It may say no to one that is good.
func plain(wire []byte, addr string) bool {
	first := true
	for len(wire) > 0 {
		number, kind, size := protowire.ConsumeTag(wire)
		if size < 0 {
			return false
		}
		wire = wire[size:]
		if size = protowire.ConsumeFieldValue(number, kind, wire); size < 0 {
			return false
		}
		var value []byte
		if kind == protowire.BytesType {
			value, _ = protowire.ConsumeBytes(wire)
		}
		switch {
		case first != (number == addrField), first && (kind != protowire.BytesType || string(value) != addr), number == serviceField,
			number == labelsField && !plainLabel(value), number != labelsField && !utf8.Valid(value):
			return false
		}
		first = false
		wire = wire[size:]
	}
	return !first
}

const (
	labelsField  protowire.Number = 7
	serviceField protowire.Number = 9
)

// plainLabel reports whether wire is an entry of the labels.
func plainLabel(wire []byte) bool {
	for len(wire) > 0 {
		number, kind, size := protowire.ConsumeTag(wire)
		if size < 0 || kind != protowire.BytesType || number > 2 {
			return false
		}
		value, n := protowire.ConsumeBytes(wire[size:])
		if n < 0 || !utf8.Valid(value) {
			return false
		}
		wire = wire[size+n:]
	}
	return true
}

// encode returns the operation that writes instance.
func encode(instance l5.Instance) (store.Op, error) {
	key := id{instance.Service, instance.Addr}.key()
	message := instance.Proto()
	message.Service = "" // stands in the key, and once in each frame
	value, err := proto.MarshalOptions{Deterministic: true}.Marshal(message)
	if err != nil {
		return store.Op{}, fmt.Errorf("l5/server: encode %q: %w", key, err)
	}
	return store.Put(key, value), nil
}

// removed returns the operation that records what a commit removes from a service. It gives the removal a revision that
// outlives it, and tells it from rows that vanished without anybody's asking.
func removed(service string, addrs ...string) store.Op {
	return store.Put(id{service: service}.key(), []byte(strings.Join(addrs, "\n")))
}
