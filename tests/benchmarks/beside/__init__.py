"""Each checker in a process of its own that answers requests, for the benchmarks `peers`, `catches` and `growth`."""
