"""A whole Guardhouse on this machine: what `make demo`, the end-to-end tests and the benchmarks start."""
