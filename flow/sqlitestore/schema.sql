-- Version 2 of the store. Times are microseconds since 1970.
CREATE TABLE flow_definition (
	name     TEXT    NOT NULL,
	version  INTEGER NOT NULL CHECK (version > 0),
	digest   TEXT    NOT NULL,
	source   BLOB    NOT NULL,
	saved_at INTEGER NOT NULL,
	PRIMARY KEY (name, version)
) WITHOUT ROWID;

-- One row per execution. An open execution has exactly one source that wakes it; one that has ended has none.
-- What changes with each step is in no index.
CREATE TABLE flow_run (
	id       TEXT    NOT NULL PRIMARY KEY,
	flow     TEXT    NOT NULL,
	version  INTEGER NOT NULL,
	key      TEXT,
	parent   TEXT,
	state    TEXT    NOT NULL CHECK (state IN ('running', 'compensating', 'stuck', 'done', 'failed', 'cancelled')),
	paused   INTEGER NOT NULL DEFAULT 0,
	step     TEXT    NOT NULL DEFAULT '',
	wake     TEXT    NOT NULL CHECK (wake IN ('none', 'runnable', 'timer', 'lease', 'callback', 'person')),
	wake_at  INTEGER,
	wake_for TEXT,
	seq      INTEGER NOT NULL CHECK (seq > 0),
	actor    TEXT    NOT NULL DEFAULT '',
	reason   TEXT    NOT NULL DEFAULT '',
	started  INTEGER NOT NULL,
	updated  INTEGER NOT NULL,
	ended    INTEGER,
	error    TEXT,
	CHECK ((state IN ('done', 'failed', 'cancelled')) = (wake = 'none')),
	CHECK ((wake = 'none') = (ended IS NOT NULL)),
	CHECK ((wake = 'timer') = (wake_at IS NOT NULL)),
	CHECK ((wake IN ('person', 'callback')) = (wake_for IS NOT NULL)),
	CHECK (state <> 'stuck' OR wake = 'person')
) WITHOUT ROWID;
CREATE UNIQUE INDEX flow_run_key ON flow_run (flow, key) WHERE key IS NOT NULL;
CREATE INDEX flow_run_parent ON flow_run (parent) WHERE parent IS NOT NULL;
CREATE INDEX flow_run_open ON flow_run (id) WHERE ended IS NULL;

-- The history: the events of one transition per row, as JSON.
CREATE TABLE flow_event (
	id   TEXT    NOT NULL,
	seq  INTEGER NOT NULL,
	at   INTEGER NOT NULL,
	body BLOB    NOT NULL,
	PRIMARY KEY (id, seq)
) WITHOUT ROWID;

-- Notices that are not delivered.
CREATE TABLE flow_notice (
	n    INTEGER PRIMARY KEY AUTOINCREMENT,
	id   TEXT NOT NULL UNIQUE,
	body BLOB NOT NULL
);
