package records

import (
	"database/sql"
	"time"
)

// sweepRows bounds what one sweep deletes of a table, so that writers wait for no long transaction.
const sweepRows = 5000

// sweepJob drops what is past its time.
func (db *DB) sweepJob() *job {
	now := db.config.Now()
	before := func(keep time.Duration) int64 { return millis(now.Add(-keep)) }
	return newJob(func(tx *sql.Tx) error {
		for _, sweep := range []struct {
			statement string
			before    int64
		}{
			{"DELETE FROM outcomes WHERE (service, bucket, addr) IN (SELECT service, bucket, addr FROM outcomes WHERE bucket < ? LIMIT ?)", before(db.config.KeepOutcomes)},
			{"DELETE FROM load WHERE (service, bucket) IN (SELECT service, bucket FROM load WHERE bucket < ? LIMIT ?)", before(db.config.KeepLoad)},
			// The last of each service holds still, however old it is.
			{"DELETE FROM audience WHERE (service, at) IN (SELECT service, at FROM audience a WHERE at < ? AND EXISTS (SELECT 1 FROM audience b WHERE b.service = a.service AND b.at > a.at) LIMIT ?)", before(db.config.KeepLoad)},
			{"DELETE FROM calls WHERE (caller, service, day) IN (SELECT caller, service, day FROM calls WHERE day < ? LIMIT ?)", before(db.config.KeepLoad)},
			{"DELETE FROM reporters WHERE reporter IN (SELECT reporter FROM reporters WHERE at < ? LIMIT ?)", before(db.config.KeepOutcomes)},
			{"DELETE FROM sessions WHERE id IN (SELECT id FROM sessions WHERE to_ms < ? LIMIT ?)", before(db.config.KeepLoad)},
			{"DELETE FROM audit WHERE id IN (SELECT id FROM audit WHERE at < ? LIMIT ?)", before(db.config.KeepAudit)},
			{"DELETE FROM changes WHERE id IN (SELECT id FROM changes WHERE at < ? LIMIT ?)", before(db.config.KeepAudit)},
			{"DELETE FROM findings WHERE id IN (SELECT id FROM findings WHERE resolved < ? LIMIT ?)", before(db.config.KeepFindings)},
		} {
			if _, err := tx.Exec(sweep.statement, sweep.before, sweepRows); err != nil {
				return err
			}
		}
		return nil
	})
}
