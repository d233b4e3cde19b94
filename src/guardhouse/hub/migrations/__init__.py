"""The history of the hub's tables, one file a step, run by `guardhouse.hub.migrate` at start."""
