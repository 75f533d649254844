"""Measurements against the shortest good program that does the same. `python -m benchmarks NAME [--quick]`."""
