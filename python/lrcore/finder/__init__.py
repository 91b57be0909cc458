"""The learning-rate range test: which learning rate to start with."""

from lrcore.finder.curve import Suggestion
from lrcore.finder.finder import Finder, find_lr
from lrcore.finder.result import RangeTest, Recommendation

__all__ = ["Finder", "RangeTest", "Recommendation", "Suggestion", "find_lr"]


def __dir__() -> list[str]:
    return sorted(__all__)
