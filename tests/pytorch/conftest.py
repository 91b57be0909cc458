"""These tests are left out where ``lrcore.torch`` can't be imported, since PyTorch is missing or too old."""

import importlib

try:
    importlib.import_module("lrcore.torch")
except ImportError as error:
    MISSING = str(error)
    collect_ignore_glob = ["test_*.py"]
else:
    import torch

    MISSING = ""
    # With several threads, each test process would wait for the threads of the others.
    torch.set_num_threads(1)


def pytest_report_header():
    """Says why the tests are left out."""
    return f"tests/pytorch is left out: {MISSING}" if MISSING else None
