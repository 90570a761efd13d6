package table

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"net/netip"
	"slices"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/zhiyun-ops/zhiyun/l5/internal/view"
	"github.com/zhiyun-ops/zhiyun/l5/l5pb"
)

// Entry is one service of a table.
type Entry struct {
	View     view.View
	Callers  []string // that may call it
	Settings []byte   // of its operator; nil: none
}

// Head is what a segment says about itself.
type Head struct {
	Segment int // which one it is
	Written time.Time
	Place   []byte // where the device is; nil: not known
}

// Encode returns the content of a segment. Entries are of that segment, each service once; their order is free.
func Encode(head Head, entries []Entry) ([]byte, error) {
	segment := head.Segment
	entries = slices.Clone(entries)
	slices.SortFunc(entries, func(a, b Entry) int {
		return cmp.Or(cmp.Compare(hash(a.View.Service), hash(b.View.Service)), cmp.Compare(a.View.Service, b.View.Service))
	})
	var instances, callers int
	for i := range entries {
		if SegmentOf(entries[i].View.Service) != segment {
			return nil, fmt.Errorf("table: service %q is not of segment %d", entries[i].View.Service, segment)
		}
		instances += len(entries[i].View.Instances)
		callers += len(entries[i].Callers)
	}
	fixed := headerSize + serviceSize*len(entries) + callerSize*callers + instanceSize*instances
	e := encoder{out: make([]byte, fixed, fixed+32*instances), pool: fixed, refs: make(map[string]uint32, 2*instances)}
	e.ref("") // at 0, so that a zero field is an empty string
	row, caller, instance := headerSize, headerSize+serviceSize*len(entries), headerSize+serviceSize*len(entries)+callerSize*callers
	var firstCaller, firstInstance uint32
	for _, entry := range entries {
		v := entry.View
		name, epoch, settings := e.ref(v.Service), e.ref(v.Epoch), e.ref(string(entry.Settings))
		b := e.out[row:]
		binary.LittleEndian.PutUint64(b[0:], hash(v.Service))
		binary.LittleEndian.PutUint64(b[8:], uint64(v.Revision))
		binary.LittleEndian.PutUint32(b[16:], name)
		binary.LittleEndian.PutUint32(b[20:], epoch)
		binary.LittleEndian.PutUint32(b[24:], firstInstance)
		binary.LittleEndian.PutUint32(b[28:], uint32(len(v.Instances)))
		binary.LittleEndian.PutUint32(b[32:], firstCaller)
		binary.LittleEndian.PutUint32(b[36:], uint32(len(entry.Callers)))
		binary.LittleEndian.PutUint32(b[40:], settings)
		row += serviceSize
		for _, name := range entry.Callers {
			ref := e.ref(name)
			binary.LittleEndian.PutUint32(e.out[caller:], ref)
			caller += callerSize
		}
		for _, p := range v.Instances {
			record, err := e.instance(p)
			if err != nil {
				return nil, fmt.Errorf("table: service %q: instance %s: %w", v.Service, p.GetAddr(), err)
			}
			copy(e.out[instance:], record[:])
			instance += instanceSize
		}
		firstInstance += uint32(len(v.Instances))
		firstCaller += uint32(len(entry.Callers))
	}
	place := e.ref(string(head.Place))
	if len(e.out) > maxSegmentSz {
		return nil, fmt.Errorf("table: segment %d would have %d bytes, more than %d", segment, len(e.out), maxSegmentSz)
	}
	e.header(head, len(entries), callers, instances, place)
	return e.out, nil
}

// encoder appends strings to the pool at the end of out.
type encoder struct {
	out  []byte
	pool int // where it begins
	refs map[string]uint32
	text []byte   // to build in
	keys []string // of labels, to sort
}

// ref returns where s stands in the pool.
func (e *encoder) ref(s string) uint32 {
	if at, ok := e.refs[s]; ok {
		return at
	}
	at := uint32(len(e.out) - e.pool)
	e.refs[s] = at
	e.out = binary.AppendUvarint(e.out, uint64(len(s)))
	e.out = append(e.out, s...)
	return at
}

// refText is ref of what stands in text; it allocates only for what is new.
func (e *encoder) refText() uint32 {
	if at, ok := e.refs[string(e.text)]; ok {
		return at
	}
	return e.ref(string(e.text))
}

func (e *encoder) header(head Head, services, callers, instances int, place uint32) {
	b := e.out
	copy(b, magic)
	binary.LittleEndian.PutUint16(b[8:], version)
	binary.LittleEndian.PutUint16(b[10:], uint16(head.Segment))
	binary.LittleEndian.PutUint16(b[12:], Segments)
	binary.LittleEndian.PutUint32(b[20:], uint32(services))
	binary.LittleEndian.PutUint32(b[24:], uint32(callers))
	binary.LittleEndian.PutUint32(b[28:], uint32(instances))
	binary.LittleEndian.PutUint32(b[32:], uint32(e.pool))
	binary.LittleEndian.PutUint32(b[36:], uint32(len(b)))
	binary.LittleEndian.PutUint64(b[40:], uint64(head.Written.UnixNano()))
	binary.LittleEndian.PutUint32(b[48:], place)
	binary.LittleEndian.PutUint32(b[16:], crc32.Checksum(b[sumStart:], castagnoli))
}

// instance returns the record of p.
func (e *encoder) instance(p *l5pb.Instance) (record [instanceSize]byte, err error) {
	b := record[:]
	var flags byte
	addr, port, kind := e.address(p.GetAddr())
	flags |= kind
	rest := &l5pb.Instance{}
	if state := p.GetState(); state >= 0 && state < stateInRest {
		flags |= byte(state) << stateShift
	} else {
		flags |= stateInRest << stateShift
		rest.State = state
	}
	if p.GetSuspect() {
		flags |= suspectFlag
	}
	b[7] = shareAbsent
	if p.Share != nil {
		if b[7] = byte(min(p.GetShare(), shareInRest)); b[7] == shareInRest {
			rest.Share = p.Share
		}
	}
	binary.LittleEndian.PutUint32(b[0:], addr)
	binary.LittleEndian.PutUint16(b[4:], port)
	b[6] = flags
	binary.LittleEndian.PutUint32(b[8:], p.GetWeight())
	binary.LittleEndian.PutUint32(b[12:], e.ref(p.GetDevice()))
	binary.LittleEndian.PutUint32(b[16:], e.ref(p.GetModule()))
	binary.LittleEndian.PutUint32(b[20:], e.ref(p.GetOwner()))
	share(rest, p)
	if e.text, err = (proto.MarshalOptions{Deterministic: true}).MarshalAppend(e.text[:0], rest); err != nil {
		return record, err
	}
	if err := e.labels(p.GetLabels()); err != nil {
		return record, err
	}
	binary.LittleEndian.PutUint32(b[24:], e.refText())
	return record, nil
}

// labels appends labels to text as a wire-format Instance has them, in order. That is what takes long about an instance,
// and marshalling a map in order takes ten times as long.
func (e *encoder) labels(labels map[string]string) error {
	e.keys = e.keys[:0]
	for key, value := range labels {
		if !utf8.ValidString(key) || !utf8.ValidString(value) {
			return fmt.Errorf("label %q: it is no UTF-8", key)
		}
		e.keys = append(e.keys, key)
	}
	slices.Sort(e.keys)
	for _, key := range e.keys {
		value := labels[key]
		e.text = protowire.AppendTag(e.text, labelsField, protowire.BytesType)
		e.text = protowire.AppendVarint(e.text, uint64(2+protowire.SizeBytes(len(key))+protowire.SizeBytes(len(value))))
		e.text = protowire.AppendTag(e.text, 1, protowire.BytesType)
		e.text = protowire.AppendString(e.text, key)
		e.text = protowire.AppendTag(e.text, 2, protowire.BytesType)
		e.text = protowire.AppendString(e.text, value)
	}
	return nil
}

// address splits addr if that loses nothing.
func (e *encoder) address(addr string) (word uint32, port uint16, kind byte) {
	parsed, err := netip.ParseAddrPort(addr)
	if err != nil || parsed.Addr().Zone() != "" {
		return e.ref(addr), 0, addrText
	}
	if e.text = parsed.AppendTo(e.text[:0]); !bytes.Equal(e.text, []byte(addr)) {
		return e.ref(addr), 0, addrText
	}
	if ip := parsed.Addr(); !ip.Is4() {
		b := ip.As16()
		e.text = append(e.text[:0], b[:]...)
		return e.refText(), parsed.Port(), addrIPv6
	}
	b := parsed.Addr().As4()
	return binary.LittleEndian.Uint32(b[:]), parsed.Port(), addrIPv4
}

// labelsField is the number of Instance.labels.
const labelsField = 7

// others are the fields of an instance that have no place in its record, but for the labels.
var others = func() (out []protoreflect.FieldDescriptor) {
	placed := []protoreflect.Name{"addr", "device", "module", "weight", "share", "state", "suspect", "owner", "labels"}
	fields := (*l5pb.Instance)(nil).ProtoReflect().Descriptor().Fields()
	for i := range fields.Len() {
		if !slices.Contains(placed, fields.Get(i).Name()) {
			out = append(out, fields.Get(i))
		}
	}
	return out
}()

// share gives to the others of from; the two share what those point at.
func share(to, from *l5pb.Instance) {
	source := from.ProtoReflect()
	for _, field := range others {
		if source.Has(field) {
			to.ProtoReflect().Set(field, source.Get(field))
		}
	}
	if unknown := source.GetUnknown(); len(unknown) > 0 {
		to.ProtoReflect().SetUnknown(unknown)
	}
}
