-- From version 2 to 3: executions are found by parameter and by device, and by when they ended. Those from before have no tags.
CREATE TABLE flow_tag (
	name  TEXT NOT NULL,
	value TEXT NOT NULL,
	id    TEXT NOT NULL,
	PRIMARY KEY (name, value, id)
) WITHOUT ROWID;
CREATE INDEX flow_tag_id ON flow_tag (id);
CREATE INDEX flow_run_ended ON flow_run (flow, ended) WHERE ended IS NOT NULL;
