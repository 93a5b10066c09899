"""Benchmarks: ``python -m bench.NAME [--json]``. Timings and ratios, never pass or fail."""
