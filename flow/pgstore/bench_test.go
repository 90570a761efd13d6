package pgstore_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/zhiyun-ops/zhiyun/flow"
	"github.com/zhiyun-ops/zhiyun/flow/pgstore"
	"github.com/zhiyun-ops/zhiyun/internal/pgtest"
)

// step is what a step of an execution writes.
const step = `[{"kind":"attempt.done","step":"s7","attempt":1,"output":{"text":"begin"}},{"kind":"step.done","step":"s7"},{"kind":"attempt.started","step":"s8","attempt":1,"tool":"step","input":{"from":"begin","step":8,"wf":"w"}}]`

// BenchmarkCommit moves so many executions by a step each in one commit; bare is the least that PostgreSQL can do for it: a row for each step, and a cursor for each
// execution.
func BenchmarkCommit(b *testing.B) {
	server := pgtest.Start(b)
	for _, executions := range []int{1, 32, 256} {
		b.Run(fmt.Sprintf("moved=%d", executions), func(b *testing.B) {
			dsn := server.Database(b)
			store, err := pgstore.Open(b.Context(), dsn)
			if err != nil {
				b.Fatal(err)
			}
			defer store.Close()
			member, err := store.Join(b.Context(), "bench", time.Hour)
			if err != nil {
				b.Fatal(err)
			}
			batch := make([]flow.Transition, executions)
			for i := range batch {
				batch[i] = running(fmt.Sprintf("01890a5d-ac96-774b-bcce-b302099a%04d", i))
				batch[i].Row.Owner = member
			}
			commit := func() {
				fates, err := store.Commit(b.Context(), batch)
				if err != nil || fates[0] != nil {
					b.Fatal(fates, err)
				}
				for i := range batch {
					t := &batch[i]
					t.Prev = t.Row.Seq
					t.Record = flow.Record{Seq: t.Row.Seq + 1, At: t.Row.Updated, Body: []byte(step)}
					t.Row.Seq += 3
				}
			}
			commit()
			b.ReportAllocs()
			for b.Loop() {
				commit()
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*executions), "ns/step")
		})
		b.Run(fmt.Sprintf("bare=%d", executions), func(b *testing.B) {
			conn, err := pgx.Connect(b.Context(), server.Database(b))
			if err != nil {
				b.Fatal(err)
			}
			defer conn.Close(b.Context())
			if _, err := conn.Exec(b.Context(), `CREATE TABLE cursor_of (id text PRIMARY KEY, n int NOT NULL, at timestamptz NOT NULL DEFAULT now());
				CREATE TABLE step (id text NOT NULL, n int NOT NULL, body text NOT NULL, at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (id, n))`); err != nil {
				b.Fatal(err)
			}
			ids, steps, bodies := make([]string, executions), make([]int32, executions), make([]string, executions)
			for i := range ids {
				ids[i], bodies[i] = fmt.Sprintf("01890a5d-ac96-774b-bcce-b302099a%04d", i), step
			}
			if _, err := conn.Exec(b.Context(), "INSERT INTO cursor_of (id, n) SELECT unnest($1::text[]), 0", ids); err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := conn.Exec(b.Context(), `WITH s AS (INSERT INTO step (id, n, body) SELECT * FROM unnest($1::text[], $2::int[], $3::text[]))
					UPDATE cursor_of c SET n = u.n + 1, at = now() FROM unnest($1::text[], $2::int[]) u (id, n) WHERE c.id = u.id`, ids, steps, bodies); err != nil {
					b.Fatal(err)
				}
				for i := range steps {
					steps[i]++
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*executions), "ns/step")
		})
	}
}
