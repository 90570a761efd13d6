-- From version 1 to 2: executions are found by parameter and by device, and by when they ended. Those from before have no tags.
CREATE TABLE flow_tag (
	name  text NOT NULL,
	value text NOT NULL,
	id    text NOT NULL COLLATE "C",
	PRIMARY KEY (name, value, id)
);
CREATE INDEX flow_tag_id ON flow_tag (id);
CREATE INDEX flow_run_ended ON flow_run (flow, ended) WHERE NOT open;
