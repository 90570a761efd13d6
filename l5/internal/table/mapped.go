package table

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime/debug"

	"github.com/zhiyun-ops/zhiyun/l5/internal/view"
)

// Mapped is a segment's file that stays mapped until Close. It takes no memory but the kernel's, which it shares with all
// who map the file. It is for one goroutine at a time.
type Mapped struct {
	file    string
	segment *Segment
	release func()
}

// Open maps a segment of a folder that belongs to this process's own user: of others' files it would believe what they may
// change. The error matches fs.ErrNotExist if there is no file, ErrDamaged or ErrVersion, and names the file.
func Open(folder string, segment int) (*Mapped, error) {
	m := &Mapped{file: path(folder, segment)}
	info, err := os.Stat(m.file)
	if err != nil {
		return nil, err
	}
	if !ours(info) {
		return nil, fmt.Errorf("%s: %w (it belongs to another user)", m.file, ErrDamaged)
	}
	data, release, err := load(m.file)
	if err != nil {
		return nil, err
	}
	m.release = release
	if err := m.guard(func() (err error) {
		m.segment, err = Parse(data, segment)
		return err
	}); err != nil {
		release()
		return nil, err
	}
	return m, nil
}

// Close ends the mapping.
func (m *Mapped) Close() { m.release() }

// View returns the state of a service, whoever may call it; the error is ErrUnknown or ErrDamaged.
func (m *Mapped) View(service string) (v view.View, err error) {
	err = m.guard(func() error {
		row, err := m.segment.row(service)
		if err == nil {
			v, err = m.segment.decoder().view(row)
		}
		return err
	})
	return v, err
}

// Each calls use with all that the segment holds, but for the instances, which it does not read.
func (m *Mapped) Each(use func(Entry)) error {
	return m.guard(func() error {
		s, d := m.segment, m.segment.decoder()
		for at := 0; at < len(s.services); at += serviceSize {
			row := s.services[at:][:serviceSize]
			name, nameErr := s.text(row[16:])
			epoch, epochErr := d.text(row[20:], true)
			settings, settingsErr := s.text(row[40:])
			callers, err := s.mayCall(row)
			if err := errors.Join(nameErr, epochErr, settingsErr, err); err != nil {
				return err
			}
			use(Entry{
				View:    view.View{Service: string(name), Epoch: epoch, Revision: int64(binary.LittleEndian.Uint64(row[8:]))},
				Callers: callers, Settings: append([]byte(nil), settings...),
			})
		}
		return nil
	})
}

func (m *Mapped) guard(use func() error) error { return guard(m.file, use) }

// guard calls use, which reads a mapping of file. Files are replaced, so that a mapping stays whole. If a disk fails, or
// somebody cuts a file short after all, reading is an error and not the end of the process.
func guard(file string, use func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		fault := recover()
		if _, ok := fault.(interface{ Addr() uintptr }); ok {
			err = fmt.Errorf("%s: %w (%v)", file, ErrDamaged, fault)
		} else if fault != nil {
			panic(fault)
		}
	}()
	if err = use(); err != nil {
		err = fmt.Errorf("%s: %w", file, err)
	}
	return err
}
