"""What a result depends on beside the code: the machine, its settings, and the versions of all that took part."""

from __future__ import annotations

import contextlib
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("lrcore", "numpy", "torch", "deepspeed", "numba", "jax", "jaxlib", "optax", "thinc", "bitsandbytes")
HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
SETTINGS = ("THP_MEM_ALLOC_ENABLE", "GLIBC_TUNABLES", "LRCORE_SIMD", "OMP_WAIT_POLICY", "OMP_PROC_BIND")


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def describe() -> dict[str, Any]:
    return {
        "cpu": _cpu(),
        "cores": cores(),
        "caches": _caches(),
        "memory_gib": round(_memory("MemTotal:") / 2**30, 1),
        "huge_pages": _read(HUGE_PAGES),
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


def free_memory() -> int:
    """Bytes that can be had without swapping; 4 GiB where the system doesn't say."""
    return _memory("MemAvailable:") or 4 << 30


def _cpu() -> str:
    for line in _read(Path("/proc/cpuinfo")).splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _caches() -> dict[str, str]:
    """The size of each level that holds data, of the first core."""
    caches = {}
    for index in sorted(CACHES.glob("index*")):
        if _read(index / "type") != "Instruction":
            shared = _read(index / "shared_cpu_list")
            caches[f"L{_read(index / 'level')}"] = f"{_read(index / 'size')} (cores {shared})"
    return caches


def _memory(name: str) -> int:
    for line in _read(Path("/proc/meminfo")).splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    return 0


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
