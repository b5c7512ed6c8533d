"""Each library in a process of its own, for the benchmark `peers`."""
