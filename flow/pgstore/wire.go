package pgstore

import "github.com/jackc/pgx/v5/pgconn"

// lend has the connection write its next message, which carries these values, into room of the batch's. Its own room it throws away
// after each message of more than 1 KiB, and makes again by doubling: a fifth of all that a commit would allocate. It reports whether it lent any; after an
// error the connection may have it still.
func (b *batch) lend(conn *pgconn.PgConn, values [][]byte) bool {
	size := 1024 // of what is around the values
	for _, value := range values {
		size += 4 + len(value)
	}
	if size < 4096 {
		return false // it might keep it
	}
	if cap(b.wire) < size {
		b.wire = make([]byte, 0, size+size/4)
	}
	conn.Frontend().Send((*loan)(&b.wire))
	return true
}

// loan is a message without a byte, which has what is written before and after it stand in other room.
type loan []byte

// Frontend implements pgproto3.FrontendMessage.
func (*loan) Frontend() {}

// Decode implements pgproto3.FrontendMessage.
func (*loan) Decode([]byte) error { return nil }

// Encode implements pgproto3.FrontendMessage.
func (l *loan) Encode(written []byte) ([]byte, error) { return append((*l)[:0], written...), nil }
