"""The range test: which learning rate to begin with."""

from lrcore.finder.curve import Suggestion
from lrcore.finder.result import Advice, RangeTest
from lrcore.finder.search import Finder, find_lr

__all__ = ["Advice", "Finder", "RangeTest", "Suggestion", "find_lr"]
