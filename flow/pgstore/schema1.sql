-- Version 1 of the store.
CREATE TABLE flow_definition (
	name     text        NOT NULL,
	version  integer     NOT NULL CHECK (version > 0),
	digest   text        NOT NULL,
	source   bytea       NOT NULL,
	saved_at timestamptz NOT NULL,
	PRIMARY KEY (name, version)
);

-- One row per execution. An open execution has exactly one source that wakes it; one that has ended has none.
-- What changes with each step is in no index, so that an update is a heap-only one.
CREATE TABLE flow_run (
	id       text        NOT NULL COLLATE "C" PRIMARY KEY,
	flow     text        NOT NULL,
	version  integer     NOT NULL,
	key      text,
	parent   text,
	state    text        NOT NULL CHECK (state IN ('running', 'compensating', 'stuck', 'done', 'failed', 'cancelled')),
	open     boolean     NOT NULL,
	paused   boolean     NOT NULL DEFAULT false,
	step     text        NOT NULL DEFAULT '',
	wake     text        NOT NULL CHECK (wake IN ('none', 'runnable', 'timer', 'lease', 'callback', 'person')),
	wake_at  timestamptz,
	wake_for text,
	seq      bigint      NOT NULL CHECK (seq > 0),
	actor    text        NOT NULL DEFAULT '',
	reason   text        NOT NULL DEFAULT '',
	started  timestamptz NOT NULL,
	updated  timestamptz NOT NULL,
	ended    timestamptz,
	error    text,
	CHECK (open = (wake <> 'none')),
	CHECK ((state IN ('done', 'failed', 'cancelled')) = (wake = 'none')),
	CHECK ((wake = 'none') = (ended IS NOT NULL)),
	CHECK ((wake = 'timer') = (wake_at IS NOT NULL)),
	CHECK ((wake IN ('person', 'callback')) = (wake_for IS NOT NULL)),
	CHECK (state <> 'stuck' OR wake = 'person')
) WITH (fillfactor = 70);
CREATE UNIQUE INDEX flow_run_key ON flow_run (flow, key) WHERE key IS NOT NULL;
CREATE INDEX flow_run_parent ON flow_run (parent) WHERE parent IS NOT NULL;
CREATE INDEX flow_run_open ON flow_run (id) WHERE open;

-- The history: the events of one transition per row.
CREATE TABLE flow_event (
	id   text        NOT NULL COLLATE "C",
	seq  bigint      NOT NULL,
	at   timestamptz NOT NULL,
	body json        NOT NULL,
	PRIMARY KEY (id, seq)
);

-- Notices that are not delivered.
CREATE TABLE flow_notice (
	n    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	id   text NOT NULL UNIQUE,
	body json NOT NULL
);
