"""Pickles functions by value, for processes that cannot import them.

pickle stores functions by module and name, but a function of a notebook, of ``python -c`` or of an interactive session
has no file to import. Here such a function is stored as its parts::

    code object (marshal), name, defaults, closure,
    and the globals that its code, and the code within it, loads by name

Functions and classes among these that cannot be imported are stored in the same way; everything else is left to pickle.
cloudpickle supports more kinds of objects and is preferred if it is installed.
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
import types
import typing
from contextlib import ExitStack, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lrcore.sweeps.objective import describe_error, unwrap

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from lrcore.sweeps.objective import Train

_GLOBAL = ("LOAD_GLOBAL", "LOAD_NAME", "STORE_GLOBAL", "DELETE_GLOBAL")
# Attributes of a class that Python creates.
_AUTOMATIC = ("__dict__", "__weakref__", "__module__", "__doc__", "__slots__", "__orig_bases__", "_abc_impl")


def dumps(value: Any, module: str | None = None) -> bytes:
    """Return bytes that ``pickle.loads`` can read in a process that cannot import the function.

    Args:
        value: The function, or an object that contains functions.
        module: A module whose functions and classes are never stored by name.

    Raises:
        pickle.PicklingError, TypeError, AttributeError: If an object that it needs cannot be pickled.
    """
    file = io.BytesIO()
    _Pickler(file, module).dump(value)
    return file.getvalue()


class _Pickler(pickle.Pickler):
    def __init__(self, file: io.BytesIO, module: str | None) -> None:
        super().__init__(file, pickle.HIGHEST_PROTOCOL)
        self._module = module
        # One dictionary of globals per module, shared by its functions; it is filled when they are unpickled.
        self._namespaces: dict[str, dict[str, Any]] = {}

    def reducer_override(self, value: Any) -> Any:
        """Return how to reconstruct an object; NotImplemented leaves it to pickle."""
        if isinstance(value, types.FunctionType | type | functools._lru_cache_wrapper) and self._is_importable(value):
            return NotImplemented
        if isinstance(value, types.FunctionType):
            return self._function(value)
        return next((reduce(value) for kind, reduce in _REDUCERS.items() if isinstance(value, kind)), NotImplemented)

    def _is_importable(self, value: Any) -> bool:
        """Return whether pickle finds a function or class by module and name, in a module that may be imported."""
        name = getattr(value, "__module__", None)
        if name in (None, self._module, "__main__"):
            return False
        if name == "builtins":  # some builtin types are not in builtins; none can be reconstructed
            return True
        found: Any = sys.modules.get(name)
        for part in value.__qualname__.split("."):
            found = getattr(found, part, None)
        return found is value

    def _function(self, function: types.FunctionType) -> tuple[Any, ...]:
        module = function.__module__ or "__main__"
        namespace = self._namespaces.setdefault(module, {})
        codes = list(_codes(function.__code__))
        names = {found.argval for code in codes for found in dis.get_instructions(code) if found.opname in _GLOBAL}
        values = {name: function.__globals__[name] for name in sorted(names) if name in function.__globals__}
        cells = {}
        for i, cell in enumerate(function.__closure__ or ()):
            with suppress(ValueError):  # it is empty
                cells[i] = cell.cell_contents
        state = {
            "globals": {"__name__": module, **values},
            "cells": cells,
            "submodules": _submodules(values.values(), {name for code in codes for name in code.co_names}),
            "attributes": {
                "__qualname__": function.__qualname__, "__module__": module, "__doc__": function.__doc__,
                "__defaults__": function.__defaults__, "__kwdefaults__": function.__kwdefaults__,
                "__dict__": function.__dict__,
            },
        }  # fmt: skip
        arguments = marshal.dumps(function.__code__), namespace, function.__name__
        return _make_function, arguments, state, None, None, _fill_function


def _basis(made: type, *names: str) -> dict[str, Any]:
    """Return the attributes that a class needs from the start, and those of the names that it defines."""
    own = {name: vars(made)[name] for name in names if name in vars(made)}
    return {"__module__": made.__module__, "__qualname__": made.__qualname__, "__doc__": made.__doc__, **own}


def _class(made: type) -> tuple[Any, ...]:
    described = (types.GetSetDescriptorType, types.MemberDescriptorType)
    attributes = {
        name: value for name, value in vars(made).items() if name not in _AUTOMATIC and not isinstance(value, described)
    }
    arguments = made.__name__, made.__bases__, _basis(made, "__slots__", "__orig_bases__")
    return type(made), arguments, attributes, None, None, _fill_class


def _enum(made: enum.EnumMeta) -> tuple[Any, ...]:
    """Return how to reconstruct an enumeration: its members, and the other definitions of its body."""
    members: dict[str, Any] = {name: member.value for name, member in made.__members__.items()}  # type: ignore[var-annotated]
    own = {
        name: value
        for name, value in vars(made).items()
        if getattr(getattr(value, "__func__", getattr(value, "fget", value)), "__module__", None) == made.__module__
        and name not in members
        and not isinstance(value, type)
    }
    arguments = type(made), made.__name__, made.__bases__, _basis(made) | members
    return _make_enum, arguments, own, None, None, _fill_class


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    """Yield a code object and those of functions and comprehensions within it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _codes(constant)


def _submodules(values: Any, names: set[str]) -> list[str]:
    """Return submodules that code may use as attributes of packages, since ``import a.b`` binds only ``a``."""
    packages = [value.__name__ + "." for value in values if isinstance(value, types.ModuleType)]
    return [
        name
        for name in list(sys.modules)
        if any(name.startswith(package) and names.issuperset(name[len(package) :].split(".")) for package in packages)
    ]


def _proxy(mapping: dict[Any, Any]) -> types.MappingProxyType[Any, Any]:
    return types.MappingProxyType(mapping)


def _make_cached(function: types.FunctionType, parameters: dict[str, Any]) -> Any:
    return functools.lru_cache(**parameters)(function)


def _make_function(code: bytes, namespace: dict[str, Any], name: str) -> types.FunctionType:
    namespace["__builtins__"] = builtins
    loaded = marshal.loads(code)  # noqa: S302  # from the parent process
    return types.FunctionType(loaded, namespace, name, None, tuple(types.CellType() for _ in loaded.co_freevars))


def _make_enum(meta: Any, name: str, bases: tuple[type, ...], body: dict[str, Any]) -> type:
    return types.new_class(name, bases, {"metaclass": meta}, lambda namespace: namespace.update(body))


def _fill_function(function: types.FunctionType, state: dict[str, Any]) -> None:
    for module in state["submodules"]:
        importlib.import_module(module)
    function.__globals__.update(state["globals"])
    cells: Sequence[types.CellType] = function.__closure__ or ()
    for i, content in state["cells"].items():
        cells[i].cell_contents = content
    for name, value in state["attributes"].items():
        setattr(function, name, value)


def _fill_class(made: type, attributes: dict[str, Any]) -> None:
    for name, value in attributes.items():
        setattr(made, name, value)


# How to reconstruct objects that pickle refuses, by their first type in this order.
_REDUCERS: dict[Any, Callable[[Any], tuple[Any, ...]]] = {
    enum.EnumMeta: _enum,
    type: _class,
    types.ModuleType: lambda module: (importlib.import_module, (module.__name__,)),
    functools._lru_cache_wrapper: lambda cached: (_make_cached, (cached.__wrapped__, cached.cache_parameters())),
    typing.TypeVar: lambda t: (functools.partial(typing.TypeVar, bound=t.__bound__), (t.__name__, *t.__constraints__)),
    property: lambda value: (property, (value.fget, value.fset, value.fdel, value.__doc__)),
    classmethod: lambda method: (classmethod, (method.__func__,)),
    staticmethod: lambda method: (staticmethod, (method.__func__,)),
    types.MappingProxyType: lambda proxy: (_proxy, (dict(proxy),)),
    type(dataclasses._FIELD): lambda kind: (getattr, (dataclasses, kind.name)),  # type: ignore[attr-defined]  # compared by identity
}


class PickledFunction:
    """A function pickled for worker processes: by name if possible, otherwise by value.

    A function pickled by value contains its globals, possibly a whole data set, so only functions that a worker can't
    import are pickled in this way.

    Args:
        train: The function.

    Attributes:
        message: The pickled function.

    Raises:
        TypeError: If it can't be pickled.
    """

    def __init__(self, train: Train) -> None:
        self._train = train
        self._whole: bytes | None = None
        self._lock = threading.Lock()
        if _is_redefined(train):
            self.by_value("it is not the function in the script's file")
            return
        try:
            self.message = pickle.dumps(train)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            self.message = _dump_by_value(train, describe_error(error))

    def by_value(self, why: str) -> bytes:
        """Return the function pickled with everything it needs of its module, which then is ``message``.

        Args:
            why: Why the function can't be pickled by name, for the error.

        Raises:
            TypeError: If it can't be pickled by value either.
        """
        with self._lock:
            if self._whole is None:
                self.message = self._whole = _dump_by_value(self._train, why, whole=True)
            return self._whole


def _is_redefined(train: Train) -> bool:
    """Return whether a function of ``__main__`` was defined interactively after the script.

    A worker would import the script's own function of that name.
    """
    function = inspect.unwrap(unwrap(train))
    main, code = sys.modules["__main__"], getattr(function, "__code__", None)
    file = getattr(main, "__file__", None)
    if code is None or file is None or getattr(function, "__module__", None) != "__main__":
        return False
    return not Path(code.co_filename).exists() and Path(file).exists()


def _dump_by_value(train: Train, why: str, *, whole: bool = False) -> bytes:
    """Pickle a function by value, with cloudpickle if it is installed.

    Args:
        train: The function.
        why: Why it can't be pickled by name, for the error.
        whole: Whether objects of its own module are pickled by value too.

    Raises:
        TypeError: If it can't be pickled by value either.
    """
    module = getattr(unwrap(train), "__module__", None) if whole else None
    has_cloudpickle = find_spec("cloudpickle") is not None
    try:
        return _dump_with_cloudpickle(train, module) if has_cloudpickle else dumps(train, module)
    except Exception as error:
        other = f"{'with cloudpickle' if has_cloudpickle else 'by value'} ({describe_error(error)})"
        raise TypeError(unsendable_message(why, other, install=not has_cloudpickle)) from None


def _dump_with_cloudpickle(train: Train, module: str | None) -> bytes:
    cloudpickle = importlib.import_module("cloudpickle")
    loaded = sys.modules.get(module or "")
    with ExitStack() as stack:
        if loaded is not None and loaded.__name__ not in cloudpickle.list_registry_pickle_by_value():
            cloudpickle.register_pickle_by_value(loaded)
            stack.callback(cloudpickle.unregister_pickle_by_value, loaded)
        return bytes(cloudpickle.dumps(train))


def unsendable_message(why: str, other: str, *, install: bool = False) -> str:
    """Return the error of a function that can be sent neither by name nor by value."""
    more = ", or install cloudpickle, which can send more" if install else ""
    return (
        f"train can't be sent to other processes ({why}), nor {other}: define it at the top level of a module, or of "
        f"the script outside of `if __name__ == '__main__':`{more}, or give workers=0, which runs it here"
    )
