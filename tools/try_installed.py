"""Test the installed lrcore: it is imported from site-packages, and every optimizer takes a step."""

import sys
import sysconfig
from importlib.metadata import distributions
from pathlib import Path

import numpy as np

import lrcore


def main() -> None:
    """Step once with every optimizer, or exit with the failure."""
    place = Path(lrcore.__file__).resolve()
    site_packages = Path(sysconfig.get_path("platlib")).resolve()
    if not place.is_relative_to(site_packages):
        sys.exit(f"lrcore was imported from {place}, not from {site_packages}")

    names = [name for name, value in vars(lrcore).items() if is_optimizer(value)]
    for name in names:
        weight, gradient = np.ones(100, dtype=np.float32), np.ones(100, dtype=np.float32)
        info = getattr(lrcore, name)(weight, lr=0.1).step(gradient)
        if not info.applied or not (weight < 1).all():
            sys.exit(f"{name} did not decrease the weights: {info}")

    installed = sorted(distribution.name for distribution in distributions())
    print(f"{place.parent} ({', '.join(installed)} installed): a step of {', '.join(names)}")


def is_optimizer(value: object) -> bool:
    """Return whether a value is an optimizer class other than the base class."""
    return isinstance(value, type) and issubclass(value, lrcore.Optimizer) and value is not lrcore.Optimizer


if __name__ == "__main__":
    main()
