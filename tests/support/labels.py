"""Names of parametrized tests that are the same in each process, as pytest-xdist needs."""

import re


def label(value):
    """Returns ``str(value)`` without addresses of objects, and sets in order."""
    if isinstance(value, set | frozenset):
        return label(sorted(value))
    return re.sub(r" at 0x[0-9a-f]+", "", str(value))
