"""Pickles functions together with their code, for processes that cannot import them.

A function of a notebook's cell, of ``python -c`` or of an interactive session has no file, and pickle stores functions
by module and name alone. Here a function is stored as what it is made of::

    its code object (marshal), name, defaults, the contents of its closure,
    and those globals that its code, and the code within it, loads by name

and so are, in turn, the functions and classes among these that another process could not import either. All else is
left to pickle. cloudpickle does the same for more kinds of objects, and is preferred where it is installed.
"""

from __future__ import annotations

import builtins
import dataclasses
import dis
import enum
import functools
import importlib
import inspect
import io
import marshal
import pickle
import sys
import threading
import typing
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from types import (
    CellType,
    CodeType,
    FunctionType,
    GetSetDescriptorType,
    MappingProxyType,
    MemberDescriptorType,
    ModuleType,
)
from typing import TYPE_CHECKING, Any

from lrcore.sweeps.objective import unwrapped

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lrcore.sweeps.objective import Train

_GLOBAL = ("LOAD_GLOBAL", "LOAD_NAME", "STORE_GLOBAL", "DELETE_GLOBAL")
# Attributes of a class that Python makes itself.
_MADE = ("__dict__", "__weakref__", "__module__", "__doc__", "__slots__", "__orig_bases__", "_abc_impl")
_EMPTY = "lrcore: an empty cell"


def dumps(value: Any, module: str | None = None) -> bytes:
    """Return a function as bytes that ``pickle.loads`` reads in a process that cannot import it.

    Args:
        value: The function, or an object with functions in it.
        module: The module of which nothing is stored by name.

    Raises:
        pickle.PicklingError, TypeError, AttributeError: If something that it needs cannot be pickled.
    """
    file = io.BytesIO()
    _Pickler(file, module).dump(value)
    return file.getvalue()


class _Pickler(pickle.Pickler):
    def __init__(self, file: io.BytesIO, module: str | None) -> None:
        super().__init__(file, pickle.HIGHEST_PROTOCOL)
        self._module = module
        # Globals by module: empty while they are pickled, and one dictionary for all functions of a module.
        self._namespaces: dict[str, dict[str, Any]] = {}

    def reducer_override(self, value: Any) -> Any:
        """Return how an object is made again; NotImplemented leaves it to pickle."""
        if isinstance(value, FunctionType):
            return NotImplemented if self._is_importable(value) else self._function(value)
        if isinstance(value, type):
            if self._is_importable(value):
                return NotImplemented
            return _enum(value) if isinstance(value, enum.EnumMeta) else _class(value)
        if isinstance(value, ModuleType):
            return importlib.import_module, (value.__name__,)
        if isinstance(value, functools._lru_cache_wrapper):
            cached = value.__wrapped__, value.cache_parameters()
            return NotImplemented if self._is_importable(value) else (_make_cached, cached)
        if isinstance(value, typing.TypeVar):
            return _make_variable, (value.__name__, value.__constraints__, value.__bound__)
        if isinstance(value, property):
            return property, (value.fget, value.fset, value.fdel, value.__doc__)
        if isinstance(value, MappingProxyType):
            return _proxy, (dict(value),)
        if isinstance(value, classmethod | staticmethod):
            return type(value), (value.__func__,)
        if isinstance(value, type(dataclasses._FIELD)):  # type: ignore[attr-defined]  # compared by identity
            return getattr, (dataclasses, value.name)
        return NotImplemented

    def _is_importable(self, value: Any) -> bool:
        """Return whether pickle finds a function or class by its module and name, and may look there."""
        name = getattr(value, "__module__", None)
        if name in (None, self._module, "__main__"):
            return False
        if name == "builtins":  # which does not have all types of that module, and none that can be made again
            return True
        found: Any = sys.modules.get(name)
        for part in value.__qualname__.split("."):
            found = getattr(found, part, None)
        return found is value

    def _function(self, function: FunctionType) -> tuple[Any, ...]:
        module = function.__module__ or "__main__"
        namespace = self._namespaces.setdefault(module, {})
        names = set(_global_names(function.__code__))
        values = {name: function.__globals__[name] for name in sorted(names) if name in function.__globals__}
        state = {
            "globals": {"__name__": module, **values},
            "cells": [_content(cell) for cell in function.__closure__ or ()],
            "submodules": _submodules(values.values(), set(_attribute_names(function.__code__))),
            "attributes": {
                "__qualname__": function.__qualname__, "__module__": module, "__doc__": function.__doc__,
                "__defaults__": function.__defaults__, "__kwdefaults__": function.__kwdefaults__,
                "__dict__": function.__dict__,
            },
        }  # fmt: skip
        arguments = marshal.dumps(function.__code__), namespace, function.__name__
        return _make_function, arguments, state, None, None, _fill_function


def _class(made: type) -> tuple[Any, ...]:
    early = {name: vars(made)[name] for name in ("__slots__", "__orig_bases__") if name in vars(made)}
    described = (GetSetDescriptorType, MemberDescriptorType)
    attributes = {
        name: value for name, value in vars(made).items() if name not in _MADE and not isinstance(value, described)
    }
    basis = {"__module__": made.__module__, "__qualname__": made.__qualname__, "__doc__": made.__doc__, **early}
    return type(made), (made.__name__, made.__bases__, basis), attributes, None, None, _fill_class


def _enum(made: enum.EnumMeta) -> tuple[Any, ...]:
    """Return how an enumeration is made again: with its members, and what else its body defines."""
    basis = {"__module__": made.__module__, "__qualname__": made.__qualname__, "__doc__": made.__doc__}
    members: dict[str, Any] = {name: member.value for name, member in made.__members__.items()}  # type: ignore[var-annotated]
    own = {
        name: value
        for name, value in vars(made).items()
        if getattr(getattr(value, "__func__", getattr(value, "fget", value)), "__module__", None) == made.__module__
        and name not in members
        and not isinstance(value, type)
    }
    return _make_enum, (type(made), made.__name__, made.__bases__, basis, members), own, None, None, _fill_class


def _codes(code: CodeType) -> Iterator[CodeType]:
    """Yield a code object, and those of the functions and comprehensions within it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _global_names(code: CodeType) -> Iterator[str]:
    for each in _codes(code):
        yield from (found.argval for found in dis.get_instructions(each) if found.opname in _GLOBAL)


def _attribute_names(code: CodeType) -> Iterator[str]:
    for each in _codes(code):
        yield from each.co_names


def _submodules(values: Any, names: set[str]) -> list[str]:
    """Return the modules within packages that code may use as their attributes: ``import a.b`` binds ``a`` alone."""
    packages = [value.__name__ + "." for value in values if isinstance(value, ModuleType)]
    return [
        name
        for name in list(sys.modules)
        if any(name.startswith(package) and names.issuperset(name[len(package) :].split(".")) for package in packages)
    ]


def _content(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return _EMPTY


def _proxy(mapping: dict[Any, Any]) -> MappingProxyType[Any, Any]:
    return MappingProxyType(mapping)


def _make_variable(name: str, constraints: tuple[Any, ...], bound: Any) -> Any:
    return typing.TypeVar(name, *constraints, bound=bound)


def _make_cached(function: FunctionType, parameters: dict[str, Any]) -> Any:
    return functools.lru_cache(**parameters)(function)


def _make_function(code: bytes, namespace: dict[str, Any], name: str) -> FunctionType:
    namespace["__builtins__"] = builtins
    loaded = marshal.loads(code)  # noqa: S302  # from this process's parent
    return FunctionType(loaded, namespace, name, None, tuple(CellType() for _ in loaded.co_freevars))


def _make_enum(meta: Any, name: str, bases: tuple[type, ...], basis: Any, members: Any) -> enum.EnumMeta:
    namespace = meta.__prepare__(name, bases)
    for key, value in (basis | members).items():
        namespace[key] = value
    made: enum.EnumMeta = meta(name, bases, namespace)
    return made


def _fill_function(function: FunctionType, state: dict[str, Any]) -> None:
    for module in state["submodules"]:
        importlib.import_module(module)
    function.__globals__.update(state["globals"])
    cells: Sequence[CellType] = function.__closure__ or ()
    for cell, content in zip(cells, state["cells"], strict=True):
        if not (isinstance(content, str) and content == _EMPTY):
            cell.cell_contents = content
    for name, value in state["attributes"].items():
        setattr(function, name, value)


def _fill_class(made: type, attributes: dict[str, Any]) -> None:
    for name, value in attributes.items():
        setattr(made, name, value)


class PickledFunction:
    """A training as it is sent to processes: by its module and name, or with all that it needs.

    The latter takes its globals along, which may be a whole data set: that is for a function that has no such name, or
    that a process has not found by it.

    Args:
        train: The training.

    Attributes:
        message: What is sent.

    Raises:
        TypeError: If it can't be sent.
    """

    def __init__(self, train: Train) -> None:
        self._train = train
        self._is_whole = False
        self._lock = threading.Lock()
        if _is_redefined(train):
            self.whole("it is not the one of the script's file")
            return
        try:
            self.message = pickle.dumps(train)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            self.message = _by_value(train, described_error(error))

    def whole(self, why: str) -> bytes:
        """Return the training with all that it needs of its module, which is the message from now on.

        Args:
            why: Why that is needed, for the error.

        Raises:
            TypeError: If it can't be sent so.
        """
        with self._lock:
            if not self._is_whole:
                self.message = _by_value(self._train, why, whole=True)
                self._is_whole = True
            return self.message


def _is_redefined(train: Train) -> bool:
    """Return whether a function of the script was defined elsewhere, as in an interactive session after the script.

    Another process would import the script's own function of that name.
    """
    function = inspect.unwrap(unwrapped(train))
    main, code = sys.modules["__main__"], getattr(function, "__code__", None)
    file = getattr(main, "__file__", None)
    if code is None or file is None or getattr(function, "__module__", None) != "__main__":
        return False
    return not Path(code.co_filename).exists() and Path(file).exists()


def _by_value(train: Train, why: str, *, whole: bool = False) -> bytes:
    """Return a training as bytes where pickle can't, or where what it made serves no process.

    cloudpickle knows more kinds of objects than :mod:`lrcore.sweeps.by_value`, which needs nothing to be installed.

    Args:
        train: The training.
        why: Why that is, for the error.
        whole: Whether what it needs of its own module is sent as well.

    Raises:
        TypeError: If it can't be sent so either.
    """
    module = getattr(unwrapped(train), "__module__", None) if whole else None
    if find_spec("cloudpickle") is None:
        try:
            return dumps(train, module)
        except Exception as error:
            raise TypeError(refusal(why, f"by value ({described_error(error)})", install=True)) from None
    cloudpickle = importlib.import_module("cloudpickle")
    loaded = sys.modules.get(module or "")
    try:
        with ExitStack() as stack:
            if loaded is not None and loaded.__name__ not in cloudpickle.list_registry_pickle_by_value():
                cloudpickle.register_pickle_by_value(loaded)
                stack.callback(cloudpickle.unregister_pickle_by_value, loaded)
            return bytes(cloudpickle.dumps(train))
    except Exception as error:
        raise TypeError(refusal(why, f"with cloudpickle ({described_error(error)})")) from None


def refusal(why: str, other: str, *, install: bool = False) -> str:
    """Return what to say of a training that no process can load, neither by name nor by value."""
    more = ", or install cloudpickle, which can send more" if install else ""
    return (
        f"train can't be sent to other processes ({why}), nor {other}: define it at the top level of a module, or of "
        f"the script outside of `if __name__ == '__main__':`{more}, or give workers=0, which runs it here"
    )


def described_error(error: BaseException) -> str:
    """Return the type and the message of an error."""
    return f"{type(error).__name__}: {error}"
