"""Sessions: work in one environment, which the first task binds for good. Runs in the hub."""
