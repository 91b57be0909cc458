"""The range test: which learning rate to begin with."""

from lrcore.finder.curve import Suggestion
from lrcore.finder.finding import find_lr
from lrcore.finder.loop import Finder
from lrcore.finder.result import Advice, RangeTest

__all__ = ["Advice", "Finder", "RangeTest", "Suggestion", "find_lr"]


def __dir__() -> list[str]:
    return sorted(__all__)
