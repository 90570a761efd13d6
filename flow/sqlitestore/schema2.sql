-- From version 1 to 2: steps no longer touch an index.
DROP INDEX flow_run_open;
CREATE INDEX flow_run_open ON flow_run (id) WHERE ended IS NULL;
