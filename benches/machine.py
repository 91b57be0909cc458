"""What a result depends on besides the code: the machine, its settings, and the versions of the libraries."""

from __future__ import annotations

import contextlib
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from lrcore import info

PACKAGES = ("lrcore", "numpy", "torch", "deepspeed", "numba", "jax", "jaxlib", "optax", "thinc", "bitsandbytes")
HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
SETTINGS = ("THP_MEM_ALLOC_ENABLE", "GLIBC_TUNABLES", "LRCORE_SIMD", "OMP_WAIT_POLICY", "OMP_PROC_BIND")


def describe() -> dict[str, Any]:
    return {
        "cpu": info.cpu_model(),
        "cores": info.affinity(),
        "caches": {f"L{cache['level']}": f"{cache['size']} (cores {cache['cpus']})" for cache in info.caches()},
        "memory_gib": round((info.memory("MemTotal") or 0) / 2**30, 1),
        "huge_pages": HUGE_PAGES.read_text().strip() if HUGE_PAGES.exists() else "",
        "system": platform.platform(),
        "python": platform.python_version(),
        "settings": {name: os.environ[name] for name in SETTINGS if name in os.environ},
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found
