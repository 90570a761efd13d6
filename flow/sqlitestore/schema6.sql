-- From version 5 to 6: what is added to flow_event is packed, which older programs cannot read. What is there stays as it is.
SELECT 1;
