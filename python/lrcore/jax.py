"""Optimizers for JAX arrays on the CPU, in a loop on the host.

JAX is imported when an optimizer is made; lrcore does not depend on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lrcore import optim
from lrcore._pytrees import Tree
from lrcore.optim.averages import require
from lrcore.optim.hyperparameter import Flag
from lrcore.optim.option_docs import described

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np

    from lrcore.optim.hyperparameter import Hyperparameter
    from lrcore.optim.stats import StepInfo

# What the docstrings of optimizers have in common, before what they have from those of the NumPy form.
_DOCSTRING = """
Args:
    params: A pytree of JAX arrays of float32 or float64, or a sequence of groups: mappings with ``"params"``,
        optionally ``"name"``, and hyperparameters that differ. The arrays are copied.
    zero_grads: False; JAX arrays can't be written to.

Raises:
    TypeError: If an argument or an array is of a wrong type.
    ValueError: If one is out of range.

Examples:
    >>> import jax.numpy as jnp, lrcore.jax  # doctest: +SKIP
    >>> opt = lrcore.jax.{name}({{"w": jnp.ones(2)}}, lr=0.5)  # doctest: +SKIP
    >>> params, info = opt.step({{"w": jnp.ones(2)}})  # doctest: +SKIP
    >>> info.step, info.lr, bool((params["w"] < 1.0).all())  # doctest: +SKIP
    (1, 0.5, True)
"""


class Optimizer(optim.Optimizer):
    """What the optimizers for JAX arrays have in common. Use one of its subclasses.

    They are those of lrcore, with the same arguments, options and numbers, and take any pytree of JAX arrays::

        grads = gradient(params, batch)  # a jitted function
        params, info = opt.step(grads)

    A JAX array never changes. So an optimizer has weights of its own: NumPy arrays, which it moves in place as lrcore
    always does. A step returns their values as new arrays. Those that it returned before stay as they are, also while
    a jitted function that was dispatched earlier still reads them, and may be kept, or donated.

    What is copied: the weights, once when the optimizer is made, and once in each step to return them. That reads 4 and
    writes 4 bytes for a weight in float32, 8 and 8 in float64; AdamW alone reads 16 and writes 12, or twice that.
    Gradients are read where JAX has them. In memory the weights are there twice, here and in what was returned.

    A parameter is named by its way through the pytree, joined with dots: ``layers.0.w``. With these names
    ``no_decay``, statistics, state dicts and checkpoints work, and states go to and from lrcore's optimizers of NumPy
    arrays. After ``lrcore.load(path, opt)`` the weights are in :attr:`params`.

    Groups are given as always, ``[{"params": pytree, "lr": 0.1}, …]``. Then gradients come, and parameters go, as a
    list with a pytree for each group.

    Examples:
        >>> import jax, jax.numpy as jnp, lrcore.jax  # doctest: +SKIP
        >>> params = {"w": jnp.ones((2, 3)), "b": jnp.zeros(3)}  # doctest: +SKIP
        >>> opt = lrcore.jax.SGD(params, lr=0.5)  # doctest: +SKIP
        >>> gradient = jax.jit(jax.grad(lambda params: params["b"].sum() + (params["w"] ** 2).sum()))  # doctest: +SKIP
        >>> params, info = opt.step(gradient(params))  # doctest: +SKIP
        >>> params["b"], info.lr  # doctest: +SKIP
        (Array([-0.5, -0.5, -0.5], dtype=float32), 0.5)

    Note:
        A step waits for its gradients, and runs on the host: not within ``jit``, ``grad``, ``vmap`` or ``scan``. There
        optax is the tool, with a schedule by :func:`to_optax <lrcore.schedules.to_optax>`.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.__module__ == __name__ and cls.__doc__:  # not of a program's subclass, nor under python -OO
            numpy_form = getattr(optim, cls.__name__)
            cls.__doc__ = described(cls, completed_by=(_DOCSTRING.format(name=cls.__name__), numpy_form.__doc__))

    def _start(self, params: Any, *, grouped: bool) -> None:
        # The arrays that were given are not kept: they would stay in memory for as long as the optimizer.
        del params
        super()._start((), grouped=grouped)

    def _add_group(self, given: Mapping[str, Any]) -> None:
        tree = given["params"]
        if not isinstance(tree, Tree):  # as it is in a pickle
            number = len(self._groups)
            if self._grouped or number:
                tree = Tree.of(tree, f"params[{number}]['params']", str(given.get("name") or number))
            else:
                tree = Tree.of(tree, "params")
        super()._add_group({**given, "params": tree})

    @classmethod
    def _kinds(cls) -> dict[str, Hyperparameter]:
        return {**super()._kinds(), "zero_grads": _NotZeroed()}

    @property
    def _trees(self) -> list[Tree]:
        return [group.params for group in self._groups]

    def step(self, grads: Any = None, *, grad_scale: float = 1.0) -> tuple[Any, StepInfo]:  # type: ignore[override]
        """Move every parameter that has a gradient by one step, and return all parameters as new arrays.

        All is checked before the first write: after an error, weights, state and step counts are as they were.

        Args:
            grads: Gradients in the structure of the parameters, JAX arrays on the CPU or NumPy arrays, each of its
                parameter's shape and dtype. None in the place of one, or of a part of the structure, skips it. For
                groups a sequence with an entry for each. Left out, the mean of those that were accumulated is used.
            grad_scale: What gradients are divided by as they are read, in (0, inf): the scale of a loss, or the number
                of micro-batches in a sum.

        Returns:
            The parameters after the step, in the structure that was given, and what the step did. The arrays are new
            even if the step was skipped.

        Raises:
            TypeError: If a gradient is a tracer or no array, or of another dtype.
            ValueError: If a gradient is missing, unexpected, of another shape or not on the CPU; if a schedule gives a
                value out of range, or parameters are float64 and JAX has ``jax_enable_x64`` no longer set.
            FloatingPointError: If gradients were not finite ``max_skips`` times in a row, with ``skip_nonfinite``.
        """
        with self._lock:
            for tree in self._trees:
                tree.check_precision()
            info = super().step(None if grads is None else self._read(grads, "grads"), grad_scale=grad_scale)
            return self.params, info

    def accumulate(self, grads: Any, weight: float = 1.0) -> int:
        """Add the gradients of a micro-batch to those that are waiting; :meth:`step` without gradients uses their mean.

        Args:
            grads: As for :meth:`step`. A parameter without a gradient counts as one of zeros, unless it never has one.
            weight: How much the micro-batch counts, in (0, inf).

        Returns:
            How many micro-batches are waiting.

        Raises:
            TypeError: As :meth:`step`.
            ValueError: As :meth:`step`. Nothing is added then.
        """
        return super().accumulate(self._read(grads, "grads"), weight)

    @property
    def params(self) -> Any:
        """The parameters as they are now, in the structure that was given; of groups a list. Reading it is a copy.

        Values may be set, in the same structure. They are copied; None in the place of one leaves it.
        """
        with self._lock:
            return self._returned(self._stepper.weights())

    @params.setter
    def params(self, values: Any) -> None:
        with self._lock:
            given = self._read(values, "params")
            for tree, arrays in zip(self._trees, given if self._grouped else [given], strict=True):
                for name, array in arrays.items():
                    if array is not None:
                        tree[name][...] = array

    def averaged_params(self) -> Any:
        """Return :meth:`averaged`: the name that the other optimizers of lrcore have for it."""
        return self.averaged()

    def averaged(self) -> Any:  # type: ignore[override]
        """Return the averages of the weights in the structure of the parameters, as new arrays, for an evaluation.

        A parameter that has no average, since it had no gradient so far, is there with its weight.

        Raises:
            ValueError: If the optimizer has no ``average``.

        Examples:
            >>> import jax.numpy as jnp, lrcore.jax  # doctest: +SKIP
            >>> opt = lrcore.jax.SGD({"w": jnp.zeros(1)}, lr=1.0, average=lrcore.SWA())  # doctest: +SKIP
            >>> for _ in range(3):  # doctest: +SKIP
            ...     params, info = opt.step({"w": jnp.array([-1.0])})
            >>> params["w"], opt.averaged()["w"]  # doctest: +SKIP
            (Array([3.], dtype=float32), Array([2.], dtype=float32))

        Note:
            Elsewhere in lrcore ``averaged`` is a ``with`` block, in which the weights themselves have these values.
            Running statistics of a batch normalisation are those of the weights: compute them anew for the averages.
        """
        require(self._common.average, self)
        with self._lock:
            averages = self.average
            weights = zip(self._names, self._stepper.weights(), strict=True)
            return self._returned([averages.get(name, weight) for name, weight in weights])

    def add_param_group(self, group: Mapping[str, Any]) -> None:
        """Add parameters, with hyperparameters of their own.

        From then on gradients come, and parameters go, in groups. Names that are taken already are prefixed with the
        group's name, or its number.

        Args:
            group: ``"params"``, a pytree; optionally ``"name"``, and hyperparameters that differ from the optimizer's.

        Raises:
            TypeError: If the group or a value in it is of a wrong type.
            ValueError: If a value is out of range.
        """
        super().add_param_group(group)
        self._params = ()

    def _read(self, values: Any, place: str) -> Any:
        """Return gradients, or other values, as the stepper takes them: by name, and of groups in a list."""
        trees = self._trees
        if not self._grouped:
            return trees[0].read(values, place)
        if not isinstance(values, Sequence) or isinstance(values, str):
            kind = type(values).__name__
            raise TypeError(f"{place} must be a sequence of {len(trees)}, a pytree for each group, got {kind}")
        if len(values) != len(trees):
            raise ValueError(f"{place} must be a sequence of {len(trees)}, a pytree for each group, got {len(values)}")
        return [tree.read(part, f"{place}[{i}]") for i, (tree, part) in enumerate(zip(trees, values, strict=True))]

    def _returned(self, arrays: list[np.ndarray[Any, Any]]) -> Any:
        """Return arrays, as many as there are parameters, as JAX arrays in the structure that was given."""
        rest = iter(arrays)
        made = [tree.rebuilt([next(rest) for _ in tree]) for tree in self._trees]
        return made if self._grouped else made[0]

    def __repr__(self) -> str:
        return f"<jax.{super().__repr__()[1:]}"


class _NotZeroed(Flag):
    """False: the memory of a JAX array is not written to."""

    __slots__ = ()

    def check(self, name: str, value: Any) -> bool:
        if super().check(name, value):
            raise ValueError(f"{name} must be False, since JAX arrays can't be written to, got True")
        return False


# fmt: off
class SGD(Optimizer, optim.SGD): """:class:`lrcore.SGD` for JAX arrays."""
class Adam(Optimizer, optim.Adam): """:class:`lrcore.Adam` for JAX arrays."""
class AdamW(Optimizer, optim.AdamW): """:class:`lrcore.AdamW` for JAX arrays."""
class RMSprop(Optimizer, optim.RMSprop): """:class:`lrcore.RMSprop` for JAX arrays."""
class Adagrad(Optimizer, optim.Adagrad): """:class:`lrcore.Adagrad` for JAX arrays."""
# fmt: on

if not TYPE_CHECKING:
    __all__ = ["Optimizer", *(one.__name__ for one in optim.OPTIMIZERS)]

    def __dir__() -> list[str]:
        return sorted(__all__)
