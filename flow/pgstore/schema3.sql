-- From version 2 to 3: several engines side by side: who they are, who owns which open execution, and what they ask of one another.

-- A member is there for as long as it lives. One that is removed never comes back: its number is its fence.
CREATE TABLE flow_member (
	id    bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	name  text        NOT NULL,
	lease interval    NOT NULL,
	seen  timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (fillfactor = 50);

-- NULL: nobody's yet. The number of a member that is not there: for the others to claim.
ALTER TABLE flow_run ADD COLUMN owner bigint;
CREATE INDEX flow_run_owner ON flow_run (owner) WHERE open;

CREATE TABLE flow_letter (
	id        bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	execution text        NOT NULL COLLATE "C",
	body      json        NOT NULL,
	answer    text,
	sent      timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX flow_letter_open ON flow_letter (execution) WHERE answer IS NULL;

-- What may be said about a wait: the time of a timer, and the latest of a signal or a person; the name of a signal, what a person is asked, what a timer is for, and why what is
-- runnable does not run.
ALTER TABLE flow_run
	DROP CONSTRAINT flow_run_wake_check, DROP CONSTRAINT flow_run_check3, DROP CONSTRAINT flow_run_check4,
	ADD CONSTRAINT flow_run_wake_check CHECK (wake IN ('none', 'runnable', 'timer', 'lease', 'signal', 'person')),
	ADD CONSTRAINT flow_run_wake_at CHECK (CASE wake WHEN 'timer' THEN wake_at IS NOT NULL WHEN 'signal' THEN true WHEN 'person' THEN true ELSE wake_at IS NULL END),
	ADD CONSTRAINT flow_run_wake_for CHECK (CASE WHEN wake IN ('person', 'signal') THEN wake_for IS NOT NULL WHEN wake IN ('runnable', 'timer') THEN true ELSE wake_for IS NULL END);
