package table

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"iter"
	"net/netip"
	"slices"
	"sort"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/zhiyun-ops/zhiyun/l5/internal/view"
	"github.com/zhiyun-ops/zhiyun/l5/l5pb"
)

// Segment reads the content of one file. Whatever the content is, its methods return ErrDamaged rather than panic. What
// they return does not point into the content.
type Segment struct {
	services, callers, instances, pool []byte
	head                               []byte
}

// Parse checks that data is a whole segment, the one of that number, and returns it. The error is ErrDamaged or
// ErrVersion. Data is not to be changed while the segment is in use.
func Parse(data []byte, segment int) (*Segment, error) {
	if len(data) < headerSize || string(data[:len(magic)]) != magic {
		return nil, fmt.Errorf("%w (no header)", ErrDamaged)
	}
	if got := binary.LittleEndian.Uint16(data[8:]); got != version {
		return nil, fmt.Errorf("%w (it is %d, this program reads %d)", ErrVersion, got, version)
	}
	if size := binary.LittleEndian.Uint32(data[36:]); uint64(size) != uint64(len(data)) {
		return nil, fmt.Errorf("%w (%d bytes of %d)", ErrDamaged, len(data), size)
	}
	if crc32.Checksum(data[sumStart:], castagnoli) != binary.LittleEndian.Uint32(data[16:]) {
		return nil, fmt.Errorf("%w (wrong checksum)", ErrDamaged)
	}
	if got := binary.LittleEndian.Uint16(data[14:]); got != 0 {
		return nil, fmt.Errorf("%w (a field that is 0 holds %d)", ErrVersion, got)
	}
	if of := binary.LittleEndian.Uint16(data[12:]); of != Segments {
		return nil, fmt.Errorf("%w (of %d segments, this program reads %d)", ErrVersion, of, Segments)
	}
	if got := binary.LittleEndian.Uint16(data[10:]); int(got) != segment {
		return nil, fmt.Errorf("%w (segment %d in the place of %d)", ErrDamaged, got, segment)
	}
	services := uint64(binary.LittleEndian.Uint32(data[20:])) * serviceSize
	callers := uint64(binary.LittleEndian.Uint32(data[24:])) * callerSize
	instances := uint64(binary.LittleEndian.Uint32(data[28:])) * instanceSize
	pool := uint64(binary.LittleEndian.Uint32(data[32:]))
	if headerSize+services+callers+instances != pool || pool > uint64(len(data)) {
		return nil, fmt.Errorf("%w (counts and size differ)", ErrDamaged)
	}
	s := &Segment{pool: data[pool:], head: data[:headerSize]}
	rest := data[headerSize:pool]
	s.services, rest = rest[:services], rest[services:]
	s.callers, s.instances = rest[:callers], rest[callers:]
	return s, nil
}

// Written returns when the segment was written.
func (s *Segment) Written() time.Time {
	return time.Unix(0, int64(binary.LittleEndian.Uint64(s.head[40:])))
}

// Place returns where the device is; empty if that was not known.
func (s *Segment) Place() ([]byte, error) {
	content, err := s.text(s.head[48:])
	return bytes.Clone(content), err
}

// Find returns a service if caller may call it; otherwise the error is ErrUnknown.
func (s *Segment) Find(caller, service string) (Entry, error) {
	row, err := s.row(service)
	if err != nil {
		return Entry{}, err
	}
	callers, err := s.mayCall(row)
	if err != nil {
		return Entry{}, err
	}
	if slices.Contains(callers, caller) {
		return s.decoder().entry(row)
	}
	return Entry{}, fmt.Errorf("%w: %q -> %q", ErrUnknown, caller, service)
}

// row returns the record of a service; the error is ErrUnknown if there is none.
func (s *Segment) row(service string) ([]byte, error) {
	want, n := hash(service), len(s.services)/serviceSize
	at := sort.Search(n, func(i int) bool { return binary.LittleEndian.Uint64(s.services[i*serviceSize:]) >= want })
	for ; at < n && binary.LittleEndian.Uint64(s.services[at*serviceSize:]) == want; at++ {
		row := s.services[at*serviceSize:][:serviceSize]
		if name, err := s.text(row[16:]); err != nil {
			return nil, err
		} else if string(name) == service {
			return row, nil
		}
	}
	return nil, fmt.Errorf("%w: %q", ErrUnknown, service)
}

// All returns all entries, until the first that cannot be read.
func (s *Segment) All() iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		d := s.decoder()
		for at := 0; at < len(s.services); at += serviceSize {
			row := s.services[at:][:serviceSize]
			if entry, err := d.entry(row); !yield(entry, err) || err != nil {
				return
			}
		}
	}
}

// text returns the bytes that the reference at the start of b names. They are part of the pool.
func (s *Segment) text(b []byte) ([]byte, error) {
	ref := binary.LittleEndian.Uint32(b)
	if uint64(ref) >= uint64(len(s.pool)) {
		return nil, fmt.Errorf("%w (a string beyond the end)", ErrDamaged)
	}
	n, width := binary.Uvarint(s.pool[ref:])
	if width <= 0 || n > uint64(len(s.pool))-uint64(ref)-uint64(width) {
		return nil, fmt.Errorf("%w (a string beyond the end)", ErrDamaged)
	}
	return s.pool[uint64(ref)+uint64(width):][:n], nil
}

// slice returns records first to first+n of all.
func slice(all []byte, first, n uint32, size uint64) ([]byte, error) {
	from, to := uint64(first)*size, (uint64(first)+uint64(n))*size
	if to > uint64(len(all)) {
		return nil, fmt.Errorf("%w (a record beyond the end)", ErrDamaged)
	}
	return all[from:to], nil
}

func (s *Segment) mayCall(row []byte) ([]string, error) {
	refs, err := slice(s.callers, binary.LittleEndian.Uint32(row[32:]), binary.LittleEndian.Uint32(row[36:]), callerSize)
	if err != nil {
		return nil, err
	}
	out := make([]string, 0, len(refs)/callerSize)
	for ; len(refs) > 0; refs = refs[callerSize:] {
		name, err := s.text(refs)
		if err != nil {
			return nil, err
		}
		out = append(out, string(name))
	}
	return out, nil
}

// decoder makes instances that share what is the same in many.
type decoder struct {
	segment *Segment
	texts   map[uint32]string
	rests   map[uint32]*l5pb.Instance
	shares  [shareInRest]*uint32
	addr    []byte
}

func (s *Segment) decoder() *decoder {
	return &decoder{segment: s, texts: make(map[uint32]string), rests: make(map[uint32]*l5pb.Instance)}
}

// entry decodes one service with what belongs to it.
func (d *decoder) entry(row []byte) (Entry, error) {
	callers, err := d.segment.mayCall(row)
	settings, settingsErr := d.segment.text(row[40:])
	v, viewErr := d.view(row)
	if err := errors.Join(err, settingsErr, viewErr); err != nil {
		return Entry{}, err
	}
	return Entry{View: v, Callers: callers, Settings: bytes.Clone(settings)}, nil
}

// view decodes one service.
func (d *decoder) view(row []byte) (view.View, error) {
	name, nameErr := d.segment.text(row[16:])
	epoch, err := d.text(row[20:], true)
	if err := errors.Join(nameErr, err); err != nil {
		return view.View{}, err
	}
	records, err := slice(d.segment.instances, binary.LittleEndian.Uint32(row[24:]), binary.LittleEndian.Uint32(row[28:]), instanceSize)
	if err != nil {
		return view.View{}, err
	}
	v := view.View{Service: string(name), Epoch: epoch, Revision: int64(binary.LittleEndian.Uint64(row[8:]))}
	all := make([]l5pb.Instance, len(records)/instanceSize)
	v.Instances = make([]*l5pb.Instance, len(all))
	for i := range all {
		if err := d.instance(&all[i], records[i*instanceSize:][:instanceSize]); err != nil {
			return view.View{}, err
		}
		if v.Instances[i] = &all[i]; i > 0 && all[i-1].Addr >= all[i].Addr {
			return view.View{}, fmt.Errorf("%w (instances out of order)", ErrDamaged)
		}
	}
	return v, nil
}

func (d *decoder) instance(p *l5pb.Instance, b []byte) error {
	flags := b[6]
	if content, err := d.text(b[24:], true); err != nil {
		return err
	} else if content != "" {
		if err := d.rest(p, binary.LittleEndian.Uint32(b[24:]), content); err != nil {
			return err
		}
	}
	var errs [4]error
	p.Addr, errs[0] = d.address(b, flags&addrMask)
	p.Device, errs[1] = d.text(b[12:], false)
	p.Module, errs[2] = d.text(b[16:], true)
	p.Owner, errs[3] = d.text(b[20:], true)
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	p.Weight = binary.LittleEndian.Uint32(b[8:])
	if state := flags >> stateShift & stateMask; state != stateInRest {
		p.State = l5pb.State(state)
	}
	p.Suspect = flags&suspectFlag != 0
	if b[7] < shareInRest {
		if d.shares[b[7]] == nil {
			d.shares[b[7]] = proto.Uint32(uint32(b[7]))
		}
		p.Share = d.shares[b[7]]
	}
	return nil
}

// text returns the string that the reference at the start of b names; one that is likely to come again is remembered.
func (d *decoder) text(b []byte, again bool) (string, error) {
	ref := binary.LittleEndian.Uint32(b)
	if s, ok := d.texts[ref]; ok || ref == 0 {
		return s, nil
	}
	content, err := d.segment.text(b)
	s := string(content)
	if again && err == nil {
		d.texts[ref] = s
	}
	return s, err
}

func (d *decoder) rest(p *l5pb.Instance, ref uint32, content string) error {
	rest := d.rests[ref]
	if rest == nil {
		rest = &l5pb.Instance{}
		if err := proto.Unmarshal([]byte(content), rest); err != nil {
			return fmt.Errorf("%w (%w)", ErrDamaged, err)
		}
		d.rests[ref] = rest
	}
	p.State, p.Share, p.Labels = rest.State, rest.Share, rest.Labels
	share(p, rest)
	return nil
}

func (d *decoder) address(b []byte, kind byte) (string, error) {
	var ip netip.Addr
	switch kind {
	case addrIPv4:
		ip = netip.AddrFrom4([4]byte(b[:4]))
	case addrIPv6:
		content, err := d.segment.text(b)
		if err != nil || len(content) != 16 {
			return "", fmt.Errorf("%w (no IPv6 address)", ErrDamaged)
		}
		ip = netip.AddrFrom16([16]byte(content))
	default:
		content, err := d.segment.text(b)
		return string(content), err
	}
	d.addr = netip.AddrPortFrom(ip, binary.LittleEndian.Uint16(b[4:])).AppendTo(d.addr[:0])
	return string(d.addr), nil
}
