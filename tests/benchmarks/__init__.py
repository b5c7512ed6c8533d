"""What the library claims to do, measured: `python -m tests.benchmarks [NAME ...] [--quick] [--json FILE]`."""
