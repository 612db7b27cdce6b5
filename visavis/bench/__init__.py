"""Benchmarks and the figures of a session."""
