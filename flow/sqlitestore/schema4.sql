-- From version 3 to 4: what a step changes is small and lies together. A commit writes the pages of the rows that changed, and with 64 executions in
-- flight each had its own pages before: its row beside what never changes of it, and its history apart from the others'.
DROP INDEX flow_run_key;
DROP INDEX flow_run_parent;
DROP INDEX flow_run_open;
DROP INDEX flow_run_ended;
ALTER TABLE flow_run RENAME TO flow_old_run;
ALTER TABLE flow_event RENAME TO flow_old_event;

-- What is settled at an execution's start, and when it ended. n stands for it in the tables below.
CREATE TABLE flow_run (
	n       INTEGER PRIMARY KEY,
	id      TEXT    NOT NULL UNIQUE,
	flow    TEXT    NOT NULL,
	key     TEXT,
	parent  TEXT,
	actor   TEXT    NOT NULL DEFAULT '',
	reason  TEXT    NOT NULL DEFAULT '',
	started INTEGER NOT NULL,
	ended   INTEGER
);

-- What changes with each step. An open execution has exactly one source that wakes it; one that has ended has none.
-- (A list behind IN would be built again for each row: hence the ORs.)
CREATE TABLE flow_now (
	n        INTEGER PRIMARY KEY,
	version  INTEGER NOT NULL,
	state    TEXT    NOT NULL,
	paused   INTEGER NOT NULL,
	step     TEXT    NOT NULL,
	wake     TEXT    NOT NULL,
	wake_at  INTEGER,
	wake_for TEXT,
	seq      INTEGER NOT NULL CHECK (seq > 0),
	updated  INTEGER NOT NULL,
	error    TEXT,
	last     INTEGER NOT NULL, -- the flow_event with which its history ends
	CONSTRAINT exactly_one_wake_up_source CHECK (CASE wake
		WHEN 'lease'    THEN (state = 'running' OR state = 'compensating') AND wake_at IS NULL AND wake_for IS NULL
		WHEN 'runnable' THEN (state = 'running' OR state = 'compensating') AND wake_at IS NULL
		WHEN 'timer'    THEN (state = 'running' OR state = 'compensating') AND wake_at IS NOT NULL
		WHEN 'signal'   THEN (state = 'running' OR state = 'compensating') AND wake_for IS NOT NULL
		WHEN 'person'   THEN (state = 'running' OR state = 'compensating' OR state = 'stuck') AND wake_for IS NOT NULL
		WHEN 'none'     THEN (state = 'done' OR state = 'failed' OR state = 'cancelled') AND wake_at IS NULL AND wake_for IS NULL
		ELSE 0 END)
);

-- The history, in the order in which it was committed: the events of one transition per row, as JSON. prev is the row before of the same execution.
CREATE TABLE flow_event (
	n    INTEGER PRIMARY KEY,
	run  INTEGER NOT NULL,
	prev INTEGER,
	seq  INTEGER NOT NULL,
	at   INTEGER NOT NULL,
	body BLOB    NOT NULL
);

-- Every 256 events of a history its row is noted here, so that a long one can be read in parts.
CREATE TABLE flow_mark (
	run INTEGER NOT NULL,
	seq INTEGER NOT NULL,
	n   INTEGER NOT NULL,
	PRIMARY KEY (run, seq)
) WITHOUT ROWID;

INSERT INTO flow_run (id, flow, key, parent, actor, reason, started, ended)
	SELECT id, flow, key, parent, actor, reason, started, ended FROM flow_old_run ORDER BY id;
INSERT INTO flow_event (n, run, prev, seq, at, body)
	SELECT row_number() OVER ordered, r.n, CASE WHEN lag(r.n) OVER ordered = r.n THEN row_number() OVER ordered - 1 END, e.seq, e.at, e.body
	FROM flow_old_event e JOIN flow_run r USING (id) WINDOW ordered AS (ORDER BY r.n, e.seq);
INSERT INTO flow_mark (run, seq, n)
	SELECT e.run, e.seq, e.n FROM flow_event e JOIN flow_event p ON p.n = e.prev WHERE e.seq >> 8 <> p.seq >> 8;
INSERT INTO flow_now (n, version, state, paused, step, wake, wake_at, wake_for, seq, updated, error, last)
	SELECT r.n, o.version, o.state, o.paused, o.step, o.wake, o.wake_at, o.wake_for, o.seq, o.updated, o.error, e.last
	FROM flow_old_run o JOIN flow_run r USING (id) JOIN (SELECT run, max(n) AS last FROM flow_event GROUP BY run) e ON e.run = r.n;
DROP TABLE flow_old_event;
DROP TABLE flow_old_run;

CREATE UNIQUE INDEX flow_run_key ON flow_run (flow, key) WHERE key IS NOT NULL;
CREATE INDEX flow_run_parent ON flow_run (parent) WHERE parent IS NOT NULL;
CREATE INDEX flow_run_open ON flow_run (id) WHERE ended IS NULL;
CREATE INDEX flow_run_ended ON flow_run (flow, ended) WHERE ended IS NOT NULL;
CREATE INDEX flow_now_runnable ON flow_now (n) WHERE wake = 'runnable';

-- Executions as one table, to read.
CREATE VIEW flow_execution AS
	SELECT n, id, flow, version, key, parent, state, paused, step, wake, wake_at, wake_for, seq, actor, reason, started, updated, ended, error, last
	FROM flow_run JOIN flow_now USING (n);
