"""Arguments to one function. Wiring only."""
