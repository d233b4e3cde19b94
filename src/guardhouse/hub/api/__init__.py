"""The hub's REST interface: one table of routes, one door that each passes, one shape for errors."""
