package server

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/zhiyun-ops/zhiyun/internal/store"
	"github.com/zhiyun-ops/zhiyun/l5"
	"github.com/zhiyun-ops/zhiyun/l5/l5pb"
)

const (
	instancePrefix = "instance/"
	fencePrefix    = "fence/"
	epochKey       = "epoch"
)

// id names an instance.
type id struct{ service, addr string }

func (i id) key() string { return instancePrefix + i.service + "/" + i.addr }

// parseKey is the reverse of key; false for another kind of key.
func parseKey(key string) (id, bool) {
	rest, ok := strings.CutPrefix(key, instancePrefix)
	if !ok {
		return id{}, false
	}
	service, addr, ok := strings.Cut(rest, "/")
	return id{service, addr}, ok && service != "" && addr != ""
}

// row is one instance as the registry holds it. It is never changed after it was made.
type row struct {
	l5.Instance
	revision int64          // of the commit that wrote it
	wire     *l5pb.Instance // what subscribers get
}

// newRow decodes a record.
func newRow(record store.Record) (*row, error) {
	name, ok := parseKey(record.Key)
	if !ok {
		return nil, fmt.Errorf("l5/server: key %q is no instance", record.Key)
	}
	r := &row{revision: record.Revision}
	if err := json.Unmarshal(record.Value, &r.Instance); err != nil {
		return nil, fmt.Errorf("l5/server: record %q: %w", record.Key, err)
	}
	r.Service, r.Addr = name.service, name.addr
	r.wire = r.Proto()
	r.wire.Service = "" // stands once in the frame
	return r, nil
}

// encode returns the operation that writes instance.
func encode(instance l5.Instance) (store.Op, error) {
	key := id{instance.Service, instance.Addr}.key()
	value, err := json.Marshal(instance)
	if err != nil {
		return store.Op{}, fmt.Errorf("l5/server: encode %q: %w", key, err)
	}
	return store.Put(key, value), nil
}
