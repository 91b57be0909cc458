"""A short benchmark of one's own machine: ``python -m lrcore bench``.

Everything takes the same step on arrays of its own with the same values, in one process and in turns, so that a machine
whose speed drifts is the same for all. Nothing of this is imported with lrcore.
"""
