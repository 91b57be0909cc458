"""Functions of interactive sessions are pickled by value, without cloudpickle."""

import os
import pickle
import subprocess
import sys
import types
from functools import partial

import numpy as np
import pytest

from lrcore.sweeps import pickling

CELLS = """
import sys
sys.modules["cloudpickle"] = None
import xml.etree.ElementTree
from dataclasses import dataclass, field
import numpy as np
from lrcore import sweeps
---
@dataclass
class Network:
    width: int
    weights: list = field(default_factory=list)

    @property
    def size(self):
        return self.width * scale

    @staticmethod
    def twice(x):
        return 2 * x


class Wider(Network):
    def grow(self):
        super().__init__(self.width + 1)
        return self
---
scale = 10
factor = lambda x: x * scale

def factorial(n):
    return 1 if n < 2 else n * factorial(n - 1)

def train(lr, seed, *, extra=1):
    "A docstring."
    assert train.__doc__ and xml.etree.ElementTree.fromstring("<a/>").tag == "a"
    model = Wider(1).grow()
    return lr * factor(factorial(3)) + Network.twice(model.size) + np.zeros(2).sum() + extra
---
print(sweeps.sweep(train, {"lr": [0.5, 1.0]}, seeds=1, workers=2).rows[0]["objective"])
---
def train(lr, seed):
    return 7.0
print([row["objective"] for row in sweeps.sweep(train, {"lr": [0.5]}, seeds=1, workers=1)])
"""
# As in IPython, each cell is compiled under its own name and executed in a __main__ without a file.
NOTEBOOK = """
import sys
main = sys.modules["__main__"]
del main.__file__
for i, cell in enumerate(open(sys.argv[1]).read().split("---")):
    exec(compile(cell, f"<cell {i}>", "exec"), vars(main))
"""


@pytest.mark.slow
@pytest.mark.parametrize("way", ["a notebook", "python -i after a script"])
def test_functions_of_cells_run_in_processes(way, tmp_path):
    cells, notebook, script = tmp_path / "cells", tmp_path / "notebook.py", tmp_path / "script.py"
    cells.write_text(CELLS, encoding="utf-8")
    notebook.write_text(NOTEBOOK, encoding="utf-8")
    # A function of the same name, which workers must not import instead of the typed one.
    script.write_text("def train(lr, seed):\n    return -1.0\n", encoding="utf-8")
    command, typed = ([notebook, cells], "") if way == "a notebook" else (["-i", script], interactive(CELLS))
    done = subprocess.run(  # noqa: S603
        [sys.executable, *command], input=typed, capture_output=True, text=True, timeout=90, cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}, check=False,
    )  # fmt: skip
    assert done.stdout.splitlines() == ["71.0", "[7.0]"], done.stderr


def interactive(text):
    """Return the cells as lines for an interactive interpreter."""
    cells = [cell.strip() for cell in text.split("---")]
    return "\n".join(f"exec(compile({cell!r}, '<stdin>', 'exec'))" for cell in cells) + "\n"


def returned(function, module=None):
    return pickle.loads(pickling.dumps(function, module))  # noqa: S301


def counter(start):
    def count(by=1, *, again=False):
        nonlocal start
        start += by
        return count(by) if again else start

    return count


def test_closures_defaults_and_recursive_functions():
    count = returned(counter(3))
    assert (count(), count(2), count(again=True)) == (4, 6, 8)
    assert count.__name__ == "count"
    assert count.__qualname__ == "counter.<locals>.count"
    assert returned(partial(lambda x, y: x - y, y=1))(3) == 2


def test_importable_functions_are_pickled_by_name():
    assert returned(np.mean) is np.mean
    assert returned(counter) is counter
    assert returned(counter, counter.__module__) is not counter


KINDS = """
import abc, collections, contextlib, dataclasses, enum, functools, typing

class Mode(enum.Enum):
    A = 1
    B = "x"

    def twice(self):
        return self.value * 2

    @property
    def low(self):
        return self.name.lower()

    @classmethod
    def first(cls):
        return cls.A

class Switch(enum.IntFlag):
    X = 1
    Y = 2

class Point(typing.NamedTuple):
    x: int
    y: int = 3

class Base(abc.ABC):
    @abc.abstractmethod
    def f(self): ...

class Subclass(Base):
    def f(self):
        return super().f() or 1

T = typing.TypeVar("T")

class Generic(typing.Generic[T]):
    def __init__(self, value: T):
        self.value = value

@dataclasses.dataclass(frozen=True, slots=True)
class Frozen:
    a: int = 1

class Outer:
    class Inner:
        k = 9

@functools.lru_cache
def cached(n):
    return n + 1

def more(function):
    @functools.wraps(function)
    def wrapper(*arguments):
        return function(*arguments) + 1
    return wrapper

@more
def plus(x):
    return x

@contextlib.contextmanager
def four():
    yield 4

def typed(mode: "Mode" = Mode.A) -> Point:
    return Point(mode.value)

def found():
    with four() as number:
        return [
            Mode.A.twice(), Mode("x").low, Mode.first() is Mode.A, int(Switch.X | Switch.Y), Point(1).y, Subclass().f(),
            Generic[int](3).value, Frozen(2).a, Outer.Inner.k, cached(1), plus(1), number, tuple(typed()),
            [cached(i) for i in range(3) if plus(i)],
        ]
"""
READ = "import pickle, sys; print(pickle.load(sys.stdin.buffer)())"


def test_classes_enumerations_and_decorated_functions_are_pickled():
    module = types.ModuleType("__main__")
    exec(compile(KINDS, "<cell>", "exec"), vars(module))  # noqa: S102
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", READ], input=pickling.dumps(module.found), capture_output=True, check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert done.stdout.decode().strip() == str(module.found()), done.stderr
    assert module.found()[:4] == [2, "b", True, 3]


def test_an_empty_cell_stays_empty():
    def outer():
        return later  # noqa: F821

    def inner():
        return value

    empty = returned(inner)
    with pytest.raises(NameError):
        empty()
    value = 1
    assert inner() == 1
    assert outer.__name__ == "outer"
