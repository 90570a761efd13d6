package pgstore

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/zhiyun-ops/zhiyun/flow"
)

// rows are those of one part of a batch, an array for each column.
type rows []array

// batch is what one statement writes for one owner.
type batch struct {
	owner int64 // 0 is none
	rows  [parts]rows
	wire  []byte // room for the message that carries them
}

func newBatch() *batch {
	b := &batch{}
	for p := range b.rows {
		b.rows[p] = make(rows, strings.Count(writes[p].columns, ", ")+1)
	}
	return b
}

func (b *batch) reset(owner int64) {
	b.owner = owner
	for p := range b.rows {
		for i := range b.rows[p] {
			b.rows[p][i].reset()
		}
	}
}

// which has the bits set of those parts of which there are rows.
func (b *batch) which() (which int) {
	for p := range parts {
		if b.rows[p][0].n > 0 {
			which |= 1 << p
		}
	}
	return which
}

// add takes in a chain of transitions, of which each but the first follows the one before.
func (b *batch) add(batch []flow.Transition, chain []int) error {
	first, last := &batch[chain[0]], &batch[chain[len(chain)-1]]
	if first.Prev == 0 {
		b.create(&last.Row)
	} else {
		b.move(first, &last.Row)
	}
	for n, i := range chain {
		t := &batch[i]
		if n > 0 || first.Prev == 0 {
			c := b.rows[records]
			c[0].text(t.Row.ID)
			c[1].bigint(t.Record.Seq)
			c[2].instant(t.Record.At)
			c[3].json(t.Record.Body)
		}
		for _, notice := range t.Notices {
			body, err := json.Marshal(notice)
			if err != nil {
				return err
			}
			c := b.rows[notices]
			c[0].text(t.Row.ID)
			c[1].text(notice.ID)
			c[2].json(body)
			c[3].int(int(c[3].n))
		}
		for _, answer := range t.Answers {
			c := b.rows[answers]
			c[0].text(t.Row.ID)
			c[1].bigint(answer.Letter)
			c[2].text(answer.Text)
		}
		for _, tag := range t.Tags {
			c := b.rows[tags]
			c[0].text(t.Row.ID)
			c[1].text(tag.Name)
			c[2].text(tag.Value)
		}
	}
	return nil
}

// The columns are in the order of writes.

func (b *batch) move(first *flow.Transition, r *flow.Row) {
	c := b.rows[moved]
	c[0].text(r.ID)
	c[1].bigint(first.Prev)
	c[2].text(string(r.State))
	c[3].bool(r.Paused)
	c[4].text(r.Step)
	c[5].text(string(r.Wake.Kind))
	c[6].instantOrNull(r.Wake.At)
	c[7].textOrNull(r.Wake.For)
	c[8].bigint(r.Seq)
	c[9].instant(r.Updated)
	c[10].instantOrNull(r.Ended)
	c[11].textOrNull(r.Error)
	c[12].int(r.Version)
	c[13].instant(first.Record.At)
	c[14].json(first.Record.Body)
}

func (b *batch) create(r *flow.Row) {
	c := b.rows[made]
	c[0].text(r.ID)
	c[1].text(r.Flow)
	c[2].int(r.Version)
	c[3].textOrNull(r.Key)
	c[4].textOrNull(r.Parent)
	c[5].text(string(r.State))
	c[6].bool(r.Paused)
	c[7].text(r.Step)
	c[8].text(string(r.Wake.Kind))
	c[9].instantOrNull(r.Wake.At)
	c[10].textOrNull(r.Wake.For)
	c[11].bigint(r.Seq)
	c[12].text(r.Actor)
	c[13].text(r.Reason)
	c[14].instant(r.Started)
	c[15].instant(r.Updated)
	c[16].instantOrNull(r.Ended)
	c[17].textOrNull(r.Error)
}

// run has a connection write the batch by its statement, in the transaction that is open there if one is, and calls taken with the ID of each execution of which something
// was written. A connection that keeps has the statement prepared once.
func (b *batch) run(ctx context.Context, conn *pgx.Conn, keeps bool, sql string, taken func(id []byte)) error {
	values := [][]byte{nil}
	if b.owner != 0 {
		values[0] = binary.BigEndian.AppendUint64(nil, uint64(b.owner))
	}
	for p := range parts {
		if b.rows[p][0].n == 0 {
			continue
		}
		i := 0
		for _, element := range writes[p].each() {
			values = append(values, b.rows[p][i].param(elementTypes[element]))
			i++
		}
	}
	formats := []int16{pgx.BinaryFormatCode} // of every parameter
	var reader *pgconn.ResultReader
	lent := false
	if keeps {
		prepared, err := conn.Prepare(ctx, sql, sql)
		if err != nil {
			return err
		}
		lent = b.lend(conn.PgConn(), values)
		reader = conn.PgConn().ExecStatement(ctx, prepared, values, formats, nil)
	} else {
		reader = conn.PgConn().ExecParams(ctx, sql, values, nil, formats, nil)
	}
	for reader.NextRow() {
		taken(reader.Values()[0])
	}
	_, err := reader.Close()
	if err != nil && lent {
		b.wire = nil // the connection may have it still
	}
	return err
}

// keepBatch bounds what a spare batch of a store holds on to, in bytes of records, and of the message that carries them.
const keepBatch = 1 << 20

// statement returns what writes a batch.
func (s *Store) statement(b *batch) string {
	which := b.which()
	if made := s.statements[which].Load(); made != nil {
		return *made
	}
	sql := statement(which)
	s.statements[which].Store(&sql)
	return sql
}

// batch returns an empty batch for an owner; hand it to done.
func (s *Store) batch(owner int64) *batch {
	b, _ := s.spare.Get().(*batch)
	if b == nil {
		b = newBatch()
	}
	b.reset(owner)
	return b
}

func (s *Store) done(b *batch) {
	if cap(b.rows[moved][14].data)+cap(b.rows[records][3].data)+cap(b.wire) <= 2*keepBatch {
		s.spare.Put(b)
	}
}
