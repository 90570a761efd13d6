-- Keys that executions hold. Only transitions that take or give up a key touch this table.
CREATE TABLE flow_lock (
	key       TEXT    NOT NULL PRIMARY KEY,
	execution TEXT    NOT NULL,
	since     INTEGER NOT NULL
) WITHOUT ROWID;
