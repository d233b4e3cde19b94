"""Skills as the hub's own records: kept in versions, and brought to the runners that lack them. Runs in the hub."""
