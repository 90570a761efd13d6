-- From version 3 to 4: keys that executions hold. Only transitions that take or give up a key touch this table.
CREATE TABLE flow_lock (
	key       text        NOT NULL PRIMARY KEY,
	execution text        NOT NULL,
	since     timestamptz NOT NULL
);
