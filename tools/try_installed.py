"""Use lrcore as it was installed: imported from the environment of this interpreter, a step of every optimizer."""

import sys
import sysconfig
from importlib.metadata import distributions
from pathlib import Path

import numpy as np

import lrcore


def main() -> None:
    """Step once with every optimizer, or say what is wrong."""
    place = Path(lrcore.__file__).resolve()
    site_packages = Path(sysconfig.get_path("platlib")).resolve()
    if not place.is_relative_to(site_packages):
        sys.exit(f"lrcore was imported from {place}, not from {site_packages}")

    names = [name for name, value in vars(lrcore).items() if is_optimizer(value)]
    for name in names:
        weight, gradient = np.ones(100, dtype=np.float32), np.ones(100, dtype=np.float32)
        info = getattr(lrcore, name)(weight, lr=0.1).step(gradient)
        if not info.applied or not (weight < 1).all():
            sys.exit(f"{name} did not move the weights: {info}")

    installed = sorted(distribution.name for distribution in distributions())
    print(f"{place.parent} ({', '.join(installed)} installed): a step of {', '.join(names)}")


def is_optimizer(value: object) -> bool:
    """Return whether a name of the package is an optimizer to use, not their base."""
    return isinstance(value, type) and issubclass(value, lrcore.Optimizer) and value is not lrcore.Optimizer


if __name__ == "__main__":
    main()
