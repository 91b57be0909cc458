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
import io
import marshal
import pickle
import sys
import typing
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

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

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
