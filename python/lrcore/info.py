"""The command ``python -m lrcore info``: versions, instruction sets, threads, the CPU, optional packages."""

from __future__ import annotations

import json
import os
import platform
from importlib import metadata, util
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import lrcore

if TYPE_CHECKING:
    import argparse

FEATURES = {
    "torch": "compared by `python -m lrcore bench`",
    "matplotlib": "plots of `python -m lrcore bench --plot`",
}
"""Optional packages, and their purpose."""

CGROUPS = Path("/sys/fs/cgroup")
CPUS = Path("/sys/devices/system/cpu")
PROCESS = Path("/proc")


def gather() -> dict[str, Any]:
    """Return everything as plain values."""
    return {
        "lrcore": lrcore.__version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "platform": platform.platform(),
        "simd": {
            "used": lrcore.get_simd_level(),
            "available": lrcore.simd_levels(),
            "LRCORE_SIMD": os.environ.get("LRCORE_SIMD") or None,
        },
        "threads": _threads(),
        "features": {name: {"version": _version(name), "purpose": purpose} for name, purpose in FEATURES.items()},
        "cpu": {"model": cpu_model(), "machine": platform.machine(), "caches": caches(), "memory": memory("MemTotal")},
    }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(given: argparse.Namespace, parser: argparse.ArgumentParser) -> int:  # noqa: ARG001  # like other commands
    """Print the information and return the exit status."""
    print(json.dumps(gather(), indent=2, ensure_ascii=False) if given.json else as_text())  # noqa: T201
    return 0


def as_text() -> str:
    """Return :func:`gather` as text."""
    found = gather()
    simd, threads, cpu = found["simd"], found["threads"], found["cpu"]
    chosen = f", by LRCORE_SIMD={simd['LRCORE_SIMD']}" if simd["LRCORE_SIMD"] == simd["used"] else ""
    lines = [
        ("lrcore", found["lrcore"]),
        ("Python", found["python"]),
        ("NumPy", found["numpy"]),
        ("platform", found["platform"]),
        ("SIMD", f"{simd['used']}{chosen} (this machine has {', '.join(simd['available'])})"),
        ("threads", f"{threads['used']}: {threads['reason']}"),
        ("CPU", cpu["model"]),
    ]
    lines += [("", _describe(cache)) for cache in cpu["caches"]]
    if cpu["memory"]:
        lines.append(("memory", f"{cpu['memory'] / 2**30:.1f} GiB"))
    for name, feature in found["features"].items():
        lines.append((name, f"{feature['version'] or 'not installed'}: {feature['purpose']}"))
    return "\n".join(f"{label:10}  {value}" for label, value in lines)


def _threads() -> dict[str, Any]:
    """Return the number of threads and everything that it may depend on."""
    cores, allowed, quota = os.cpu_count() or 1, affinity(), cgroup_quota()
    used, wanted = lrcore.get_num_threads(), os.environ.get("LRCORE_NUM_THREADS") or None
    return {
        "used": used,
        "reason": _reason(used, cores, allowed, quota, wanted),
        "cores": cores,
        "affinity": allowed,
        "cgroup_quota": quota,
        "LRCORE_NUM_THREADS": wanted,
    }


def _reason(used: int, cores: int, allowed: int, quota: float | None, wanted: str | None) -> str:
    """Return the reason for the number of threads."""
    if wanted is not None and wanted.strip() == str(used):
        return f"LRCORE_NUM_THREADS={wanted}"
    default = _cores(allowed, quota)
    if used != default:
        return f"lrcore.set_num_threads({used}), or the number of usable cores when lrcore was first used"
    if default < allowed:
        return f"the cgroup quota is {quota:g} core{'s' * (quota != 1)}, of {allowed} that the process may use"
    if allowed < cores:
        return f"the process may use {allowed} of {cores} cores (affinity)"
    return "one per core"


def usable_cores() -> int:
    """Return how many cores this process may use, by its affinity and its cgroup quota.

    It is the default number of lrcore's threads, and of a sweep's workers.
    """
    return _cores(affinity(), cgroup_quota())


def _cores(allowed: int, quota: float | None) -> int:
    return allowed if quota is None else min(allowed, max(1, int(quota)))


def affinity() -> int:
    """Return how many cores the process may run on, by its affinity."""
    if hasattr(os, "process_cpu_count"):  # from Python 3.13 on; it respects PYTHON_CPU_COUNT
        return os.process_cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cgroup_quota() -> float | None:
    """Return the CPU quota of the process's cgroup in cores, or None if there is none."""
    quotas: list[float | None] = []
    for line in read(PROCESS / "self" / "cgroup").splitlines():
        _, controllers, group = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        # cgroup v1 is mounted under its controllers; v2 at the root, or under unified beside v1.
        for name in ("cpu", controllers) if controllers else ("", "unified"):
            mount = CGROUPS / name
            folder = mount / group.lstrip("/")
            # Quotas of parents apply too. In a container the path may not exist, and the mount is its own group.
            quotas += [_quota(place) for place in [folder, *folder.parents] if place.is_relative_to(mount)]
    return min((quota for quota in quotas if quota is not None), default=None)


def _quota(group: Path) -> float | None:
    """Return the quota of one cgroup, v2 or v1, in cores."""
    limits = read(group / "cpu.max").split()
    if not limits:
        limits = [read(group / "cpu.cfs_quota_us"), read(group / "cpu.cfs_period_us")]
    try:
        time, period = (int(limit) for limit in limits)
    except ValueError:  # "max", or no file
        return None
    return time / period if time > 0 and period > 0 else None


def cpu_model() -> str:
    """Return the name of the CPU, or of its architecture."""
    for line in read(PROCESS / "cpuinfo").splitlines():
        label, _, value = line.partition(":")
        if label.strip() in {"model name", "Model"} and value.strip():
            return value.strip()
    return platform.processor() or platform.machine()


def caches() -> list[dict[str, Any]]:
    """Return the data caches of the process's first core, on Linux."""
    first = min(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
    caches = []
    for index in sorted((CPUS / f"cpu{first}" / "cache").glob("index*")):
        level, kind, size = (read(index / name) for name in ("level", "type", "size"))
        if kind != "Instruction" and level.isdecimal() and size:
            caches.append({"level": int(level), "type": kind, "size": size, "cpus": read(index / "shared_cpu_list")})
    return caches


def _describe(cache: dict[str, Any]) -> str:
    kind = " data" if cache["type"] == "Data" else ""
    return f"L{cache['level']}{kind} {cache['size'].removesuffix('K')} KiB, shared by cores {cache['cpus']}"


def memory(field: str) -> int | None:
    """Return a field of ``/proc/meminfo`` in bytes, or None."""
    for line in read(PROCESS / "meminfo").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    return None


def _version(package: str) -> str | None:
    """Return the version of a package without importing it, which may take seconds; None if it is not installed."""
    if util.find_spec(package) is None:
        return None
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "unknown version"


def read(path: Path) -> str:
    """Return the text of a file, or an empty string if it can't be read."""
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""
