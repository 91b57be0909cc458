"""Interpreter shutdown while daemon threads run steps; see ``tools/exits.py``."""

from __future__ import annotations

import random
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import TYPE_CHECKING

from soak import campaign

if TYPE_CHECKING:
    from types import ModuleType

KINDS = ["steps", "first", "options", "accumulate", "two"]


def load(path: Path) -> ModuleType:
    """Return a script as a module."""
    spec = spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


EXITS = load(Path(__file__).parents[2] / "tools" / "exits.py")


def trial(seed: int) -> int:
    """Run one interpreter until its shutdown."""
    fault = EXITS.trial(sys.executable, KINDS, random.Random(seed))  # noqa: S311
    assert fault is None, fault
    return 1


if __name__ == "__main__":
    campaign.main(trial)
