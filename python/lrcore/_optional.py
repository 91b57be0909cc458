"""Optional packages, and the error where one is missing."""

from __future__ import annotations

from importlib import import_module
from typing import Any

# A plain "pip install torch" installs a CUDA build of several GB on Linux.
INSTALL_TORCH = "pip install torch --index-url https://download.pytorch.org/whl/cpu"


def imported(module: str, message: str) -> Any:
    """Return a module, or raise an ImportError with the message if its package is not installed.

    Errors within an installed package are raised unchanged.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != module.partition(".")[0]:
            raise
        raise ImportError(message) from None


def matplotlib(module: str) -> Any:
    """Return a module of matplotlib, or raise an ImportError."""
    return imported(module, "plots need matplotlib, which is not installed: pip install matplotlib")
