"""Benchmarks against other libraries: ``python -m lrcore bench``, and what `make bench` shares with it.

All competitors take the same step on their own arrays with the same values, in one process and in turns, so that a
machine whose speed drifts is the same for all. Nothing here is imported with lrcore.
"""
