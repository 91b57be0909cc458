"""The range test: which learning rate to begin with."""

from lrcore.finder.curve import Suggestion
from lrcore.finder.finding import find_lr
from lrcore.finder.loop import Finder
from lrcore.finder.result import RangeTest, Recommendation

__all__ = ["Finder", "RangeTest", "Recommendation", "Suggestion", "find_lr"]


def __dir__() -> list[str]:
    return sorted(__all__)
