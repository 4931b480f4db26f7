"""Benchmarks: every figure that a document states comes from here. Run them with ``make bench``."""
