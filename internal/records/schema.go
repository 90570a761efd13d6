package records

import "database/sql"

// Times are Unix milliseconds, durations nanoseconds. A key is the writer's own name of a record: the same key
// again writes nothing.
const schema = `
CREATE TABLE IF NOT EXISTS sessions (
	id      INTEGER PRIMARY KEY,
	from_ms INTEGER NOT NULL,
	to_ms   INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS audit (
	id        INTEGER PRIMARY KEY AUTOINCREMENT,
	at        INTEGER NOT NULL,
	actor     TEXT NOT NULL,
	action    TEXT NOT NULL,
	object    TEXT NOT NULL,
	reason    TEXT NOT NULL,
	execution TEXT NOT NULL,
	detail    TEXT NOT NULL,
	proved    TEXT NOT NULL DEFAULT '',
	key       TEXT
);
CREATE TABLE IF NOT EXISTS audit_cursors (
	source TEXT PRIMARY KEY,
	cursor TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS audit_actor ON audit (actor, id);
CREATE INDEX IF NOT EXISTS audit_object ON audit (object, id);
CREATE INDEX IF NOT EXISTS audit_at ON audit (at);
CREATE TABLE IF NOT EXISTS changes (
	id        INTEGER PRIMARY KEY AUTOINCREMENT,
	key       TEXT UNIQUE,
	at        INTEGER NOT NULL,
	actor     TEXT NOT NULL,
	module    TEXT NOT NULL,
	device    TEXT NOT NULL,
	kind      TEXT NOT NULL,
	summary   TEXT NOT NULL,
	reason    TEXT NOT NULL,
	execution TEXT NOT NULL,
	detail    TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS changes_module ON changes (module, id);
CREATE INDEX IF NOT EXISTS changes_at ON changes (at);
CREATE TABLE IF NOT EXISTS findings (
	id         INTEGER PRIMARY KEY AUTOINCREMENT,
	device     TEXT NOT NULL,
	module     TEXT NOT NULL,
	kind       TEXT NOT NULL,
	subject    TEXT NOT NULL,
	expected   TEXT NOT NULL,
	actual     TEXT NOT NULL,
	who        TEXT NOT NULL,
	verdict    TEXT NOT NULL,
	first_seen INTEGER NOT NULL,
	last_seen  INTEGER NOT NULL,
	times      INTEGER NOT NULL,
	resolved   INTEGER,
	resolution TEXT NOT NULL DEFAULT '',
	resolver   TEXT NOT NULL DEFAULT ''
);
CREATE UNIQUE INDEX IF NOT EXISTS findings_open ON findings (device, kind, subject) WHERE resolved IS NULL;
CREATE INDEX IF NOT EXISTS findings_device ON findings (device, id);
CREATE INDEX IF NOT EXISTS findings_resolved ON findings (resolved) WHERE resolved IS NOT NULL;
CREATE TABLE IF NOT EXISTS outcomes (
	service   TEXT NOT NULL,
	bucket    INTEGER NOT NULL,
	addr      TEXT NOT NULL,
	device    TEXT NOT NULL,
	requests  INTEGER NOT NULL,
	failures  INTEGER NOT NULL,
	rejected  INTEGER NOT NULL,
	latency   INTEGER NOT NULL,
	reports   INTEGER NOT NULL,
	histogram BLOB NOT NULL,
	PRIMARY KEY (service, bucket, addr)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS outcomes_bucket ON outcomes (bucket);
CREATE TABLE IF NOT EXISTS load (
	service  TEXT NOT NULL,
	bucket   INTEGER NOT NULL,
	requests INTEGER NOT NULL,
	failures INTEGER NOT NULL,
	rejected INTEGER NOT NULL,
	latency  INTEGER NOT NULL,
	PRIMARY KEY (service, bucket)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS load_bucket ON load (bucket);
CREATE TABLE IF NOT EXISTS audience (
	service  TEXT NOT NULL,
	at       INTEGER NOT NULL,
	watching INTEGER NOT NULL,
	lost     INTEGER NOT NULL,
	PRIMARY KEY (service, at)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS audience_at ON audience (at);
CREATE TABLE IF NOT EXISTS calls (
	caller   TEXT NOT NULL,
	service  TEXT NOT NULL,
	day      INTEGER NOT NULL,
	requests INTEGER NOT NULL,
	failures INTEGER NOT NULL,
	last_ms  INTEGER NOT NULL,
	PRIMARY KEY (caller, service, day)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS calls_day ON calls (day);
CREATE TABLE IF NOT EXISTS reporters (
	reporter TEXT PRIMARY KEY,
	seq      INTEGER NOT NULL,
	at       INTEGER NOT NULL
) WITHOUT ROWID;
`

// added are columns that files of earlier versions lack, and what stands on them.
var added = []struct{ table, column, definition string }{
	{"audit", "proved", "TEXT NOT NULL DEFAULT ''"},
	{"audit", "key", "TEXT"},
}

const afterAdded = `CREATE UNIQUE INDEX IF NOT EXISTS audit_key ON audit (key) WHERE key IS NOT NULL`

// migrate brings a file to the schema: new tables, and new columns of old ones.
func migrate(db *sql.DB) error {
	if _, err := db.Exec(schema); err != nil {
		return err
	}
	for _, a := range added {
		var n int
		if err := db.QueryRow(`SELECT COUNT(*) FROM pragma_table_info(?) WHERE name = ?`, a.table, a.column).Scan(&n); err != nil {
			return err
		}
		if n == 0 {
			if _, err := db.Exec(`ALTER TABLE ` + a.table + ` ADD COLUMN ` + a.column + ` ` + a.definition); err != nil {
				return err
			}
		}
	}
	_, err := db.Exec(afterAdded)
	return err
}
