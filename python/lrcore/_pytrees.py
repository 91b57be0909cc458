"""Converts pytrees of JAX arrays to NumPy arrays by name, and back; for :mod:`lrcore.jax`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from lrcore import _optional
from lrcore.optim.allocation import empty_like

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self

    _Array = np.ndarray[Any, Any]
    _Path = tuple[Any, ...]

_OLDEST = (0, 4, 30)
_ALLOWED = "allowed are float32 and float64"
# Smaller arrays are copied together by one jitted function, which takes a fifth of the time of separate device_puts.
# For larger ones glibc's malloc takes new memory from the system, which NumPy fills in half the time of XLA, since it
# requests huge pages.
_LARGE = 32 << 20  # bytes


class Tree(dict[str, "_Array"]):
    """The weights of a pytree by name, as NumPy arrays that the optimizer owns.

    Attributes:
        structure: JAX's treedef.
        paths: JAX's key path of each leaf.
        device: The id of the CPU device of the leaves.
        committed: Whether the leaves were committed to that device.
    """

    structure: Any
    paths: list[_Path]
    device: int
    committed: bool

    @classmethod
    def of(cls, params: Any, place: str, group: str | None = None) -> Self:
        """Copy the leaves of a pytree, or raise TypeError or ValueError.

        Args:
            params: The pytree.
            place: Its name in messages.
            group: The name of its group, if there are several: a prefix of names, unless the pytree is a mapping.
        """
        jax = jax_module()
        leaves, structure = jax.tree_util.tree_flatten_with_path(params)
        tree = cls()
        tree.structure, tree.paths = structure, [path for path, _ in leaves]
        tree.device, tree.committed = 0, False
        first = [] if group is None or isinstance(params, Mapping) else [group]
        for path, leaf in leaves:
            if isinstance(leaf, np.ndarray):
                raise TypeError(
                    f"{_at(place, path)} must be a JAX array, got ndarray; NumPy arrays are for lrcore.SGD, …"
                )
            array = _read(leaf, place, path)
            if array.dtype not in (np.float32, np.float64):
                raise TypeError(f"{_at(place, path)} has dtype {array.dtype}; {_ALLOWED}")
            (device,) = leaf.devices()
            if tree and device.id != tree.device:
                raise ValueError(f"{_at(place, path)} is on cpu:{device.id}, others on cpu:{tree.device}")
            # JAX 0.4.30 has no such attribute. An unneeded commitment only makes JAX compile once more.
            tree.device, tree.committed = device.id, tree.committed or getattr(leaf, "committed", True)
            name = ".".join([*first, *map(_name_of, path)]) or "0"
            if name in tree:
                other = _at(place, next(one for one, own in zip(tree.paths, tree, strict=False) if own == name))
                raise ValueError(
                    f"{_at(place, path)}: there is a parameter named {name!r} already, {other}; names are keys joined "
                    "by dots: rename one of the keys"
                )
            tree[name] = _copy(array)
        return tree

    def read(self, values: Any, place: str) -> dict[str, _Array | None]:
        """Return the leaves of a pytree of this structure by name, without copies; None where a leaf is None.

        Raises:
            TypeError: If a leaf is a tracer or not an array, or has another dtype than the weight.
            ValueError: If a leaf is missing, unexpected, has another shape or is not on the CPU.
        """
        leaves, structure = jax_module().tree_util.tree_flatten(values)
        if structure != self.structure:
            leaves = self._matched(values, place)
        arrays: dict[str, _Array | None] = {}
        for (name, weight), path, leaf in zip(self.items(), self.paths, leaves, strict=True):
            arrays[name] = array = None if leaf is None else _read(leaf, place, path)
            if array is None:
                continue
            if array.shape != weight.shape:
                given, own = array.shape, weight.shape
                raise ValueError(f"{_at(place, path)} has shape {given}, the parameter {name!r} has {own}")
            if array.dtype != weight.dtype:
                given, own = array.dtype, weight.dtype
                raise TypeError(
                    f"{_at(place, path)} has dtype {given}, the parameter {name!r} has {own}; "
                    f"give {_at(place, path)}.astype({own.name!r})"
                )
        return arrays

    def _matched(self, values: Any, place: str) -> list[Any]:
        """Return a leaf for each weight, of a pytree with None in the place of leaves or branches.

        Containers may differ: a list for a tuple, one mapping for another.
        """
        leaves, _ = jax_module().tree_util.tree_flatten_with_path(values, is_leaf=lambda value: value is None)
        given = dict(leaves)
        branches = {path for path, leaf in leaves if leaf is None}
        matched = []
        for path in self.paths:
            if path in given:
                matched.append(given.pop(path))
            elif any(path[:depth] in branches for depth in range(len(path))):
                matched.append(None)
            else:
                raise ValueError(f"{_at(place, path)} is missing; give None to skip that parameter")
        for path, leaf in given.items():
            if leaf is not None:
                raise ValueError(f"{_at(place, path)} is unexpected: params has no such entry")
        return matched

    def rebuilt(self, arrays: Sequence[_Array]) -> Any:
        """Return an array for each weight as a pytree of JAX arrays that share no memory with them.

        No function of JAX is certain to have copied a NumPy array when it returns: ``device_put`` aliases aligned
        memory, also with ``may_alias=False``, and ``jnp.array`` copies in the background. So large arrays are copied
        to new memory first, and for small ones this waits until the copy is done.
        """
        jax = jax_module()
        self.check_precision()
        device = _device(self.device)
        target = device if self.committed else None
        small = [array for array in arrays if array.nbytes < _LARGE]
        large = [_copy(array) for array in arrays if array.nbytes >= _LARGE]
        # Otherwise the arrays would become part of a trace that is active.
        with jax.ensure_compile_time_eval(), jax.default_device(device):
            copied = iter(jax.block_until_ready(_jitted_copy(target)(small)) if small else ())
            handed = iter(jax.device_put(large, target) if large else ())
        leaves = [next(copied if array.nbytes < _LARGE else handed) for array in arrays]
        return jax.tree_util.tree_unflatten(self.structure, leaves)

    def check_precision(self) -> None:
        """Raise a ValueError if JAX would round float64 to float32."""
        if not jax_module().config.jax_enable_x64:
            for name, weight in self.items():
                if weight.dtype == np.float64:
                    raise ValueError(f"the parameter {name!r} is float64, and jax_enable_x64 is not set any more")


@cache
def jax_module() -> Any:
    """Return the module jax, or raise an ImportError that says what to install."""
    install = "python -m pip install 'jax>=0.4.30'"
    jax = _optional.imported("jax", f"lrcore.jax needs jax, which is not installed: {install}")
    if jax.__version_info__ < _OLDEST:
        raise ImportError(f"lrcore.jax needs jax 0.4.30 or later, and {jax.__version__} is installed: {install}")
    return jax


def _read(leaf: Any, place: str, path: _Path) -> _Array:
    """Return a leaf as a NumPy array, without a copy, or raise TypeError or ValueError."""
    jax = jax_module()
    if isinstance(leaf, np.ndarray):
        return leaf
    if isinstance(leaf, jax.core.Tracer):
        raise TypeError(
            f"{_at(place, path)} is a tracer, which has no value yet: optimizers of lrcore.jax are made and stepped "
            "outside of jit, grad, vmap and scan; inside, use optax, with schedules.to_optax for the learning rate"
        )
    if not isinstance(leaf, jax.Array):
        again = hasattr(leaf, "__iter__") and not hasattr(leaf, "__getitem__")
        hint = "; give list(...) of it, since it is read at every step" if again else ""
        raise TypeError(f"{_at(place, path)} must be a JAX array, got {type(leaf).__name__}{hint}")
    devices = leaf.devices()
    if len(devices) != 1 or next(iter(devices)).platform != "cpu":
        where = ", ".join(sorted(f"{device.platform}:{device.id}" for device in devices))
        raise ValueError(
            f"{_at(place, path)} is on {where}; allowed is one device of the CPU: "
            'jax.device_put(x, jax.devices("cpu")[0])'
        )
    if not isinstance(leaf.dtype, np.dtype):  # a random key
        raise TypeError(f"{_at(place, path)} has dtype {leaf.dtype}; {_ALLOWED}")
    return np.asarray(leaf)


def _at(place: str, path: _Path) -> str:
    return f"{place}{jax_module().tree_util.keystr(path)}"


def _name_of(key: Any) -> str:
    """Return a part of a path for a parameter's name: a key, an index, or the name of an attribute."""
    return next((str(getattr(key, kind)) for kind in ("key", "idx", "name") if hasattr(key, kind)), str(key))


def _copy(array: _Array) -> _Array:
    new = empty_like(array)
    new[...] = array
    return new


@cache
def _device(number: int) -> Any:
    return next(device for device in jax_module().devices("cpu") if device.id == number)


@cache
def _jitted_copy(device: Any) -> Any:
    """Return a jitted function that copies arrays, committed to a device if one is given."""
    jax = jax_module()
    sharding = {} if device is None else {"out_shardings": jax.sharding.SingleDeviceSharding(device)}
    return jax.jit(lambda arrays: [jax.numpy.copy(array) for array in arrays], **sharding)
