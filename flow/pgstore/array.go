package pgstore

import (
	"encoding/binary"
	"math"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5/pgtype"
)

// array is a one-dimensional array as a parameter in PostgreSQL's binary format, written element by element: what a driver does for any type by reflection costs more
// than the rest of a commit does on this side. Source: array_recv and the types' own receive functions, src/backend/utils/adt.
type array struct {
	n     uint32
	nulls bool
	data  []byte // behind room for the header
}

// arrayHeader is dimensions, whether there are NULLs, the type of the elements, their number and the first index, four bytes each.
const arrayHeader = 20

// elementTypes are the types that arrays are made of.
var elementTypes = map[string]uint32{
	"text": pgtype.TextOID, "json": pgtype.JSONOID, "int": pgtype.Int4OID, "bigint": pgtype.Int8OID, "bool": pgtype.BoolOID, "timestamptz": pgtype.TimestamptzOID,
}

func (a *array) reset() {
	a.n, a.nulls = 0, false
	a.data = append(a.data[:0], make([]byte, arrayHeader)...)
}

// param completes the array. It is valid until the next reset.
func (a *array) param(element uint32) []byte {
	if a.n > 0 {
		binary.BigEndian.PutUint32(a.data, 1)
	}
	if a.nulls {
		binary.BigEndian.PutUint32(a.data[4:], 1)
	}
	binary.BigEndian.PutUint32(a.data[8:], element)
	if a.n == 0 {
		return a.data[:12] // no dimensions
	}
	binary.BigEndian.PutUint32(a.data[12:], a.n)
	binary.BigEndian.PutUint32(a.data[16:], 1)
	return a.data
}

func (a *array) size(n int) {
	a.n++
	a.data = binary.BigEndian.AppendUint32(a.data, uint32(n))
}

func (a *array) null() {
	a.n, a.nulls = a.n+1, true
	a.data = binary.BigEndian.AppendUint32(a.data, math.MaxUint32) // -1
}

// storable replaces what PostgreSQL's UTF-8 cannot hold, so that no tool's output can keep a whole batch from being stored.
func storable(s string) string {
	if utf8.ValidString(s) && strings.IndexByte(s, 0) < 0 {
		return s
	}
	return strings.ReplaceAll(strings.ToValidUTF8(s, "\ufffd"), "\x00", "\ufffd")
}

func (a *array) text(s string) {
	s = storable(s)
	a.size(len(s))
	a.data = append(a.data, s...)
}

// textOrNull appends a text; "" is NULL.
func (a *array) textOrNull(s string) {
	if s == "" {
		a.null()
		return
	}
	a.text(s)
}

// json appends what is JSON already. It may have bytes in its texts that are not UTF-8.
func (a *array) json(b []byte) {
	if !utf8.Valid(b) {
		b = []byte(storable(string(b)))
	}
	a.size(len(b))
	a.data = append(a.data, b...)
}

func (a *array) int(n int) {
	a.size(4)
	a.data = binary.BigEndian.AppendUint32(a.data, uint32(int32(n)))
}

func (a *array) bigint(n int64) {
	a.size(8)
	a.data = binary.BigEndian.AppendUint64(a.data, uint64(n))
}

func (a *array) bool(b bool) {
	a.size(1)
	if b {
		a.data = append(a.data, 1)
		return
	}
	a.data = append(a.data, 0)
}

// epoch is PostgreSQL's.
var epoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC).UnixMicro()

// instant appends a time, in microseconds.
func (a *array) instant(t time.Time) { a.bigint(t.UnixMicro() - epoch) }

// instantOrNull appends a time; zero is NULL.
func (a *array) instantOrNull(t time.Time) {
	if t.IsZero() {
		a.null()
		return
	}
	a.instant(t)
}
