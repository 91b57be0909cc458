"""Optimizers for JAX arrays on the CPU, stepped on the host.

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

# The common part of docstrings, before that of the NumPy optimizer.
_DOCSTRING = """
Args:
    params: A pytree of JAX arrays of float32 or float64, or a sequence of groups: mappings with ``"params"``,
        optionally ``"name"``, and hyperparameters that differ. The arrays are copied.
    zero_grads: False; JAX arrays can't be written to.

Raises:
    TypeError: If an argument or an array has a wrong type.
    ValueError: If an argument is out of range.

Examples:
    >>> import jax.numpy as jnp, lrcore.jax  # doctest: +SKIP
    >>> opt = lrcore.jax.{name}({{"w": jnp.ones(2)}}, lr=0.5)  # doctest: +SKIP
    >>> params, info = opt.step({{"w": jnp.ones(2)}})  # doctest: +SKIP
    >>> info.step, info.lr, bool((params["w"] < 1.0).all())  # doctest: +SKIP
    (1, 0.5, True)
"""


class Optimizer(optim.Optimizer):
    """The base class of the optimizers for JAX arrays. Use a subclass.

    Arguments, options and numbers are those of lrcore's other optimizers. Parameters are any pytree of JAX arrays::

        grads = gradient(params, batch)  # a jitted function
        params, info = opt.step(grads)

    JAX arrays are immutable, so the optimizer holds a copy of the weights in NumPy arrays, updates it in place, and
    returns new JAX arrays after each step. Arrays that it returned before stay valid: a jitted function that is still
    running may read them, and they may be donated.

    Copies: the weights, when the optimizer is made and after each step. Per weight that reads 4 and writes 4 bytes in
    float32, 8 and 8 in float64; a step of AdamW itself reads 16 and writes 12, or twice that. Gradients are not copied.
    The weights take memory twice.

    A parameter is named by its path through the pytree, joined with dots: ``layers.0.w``. ``no_decay``, statistics,
    state dicts and checkpoints use these names, so a state can be loaded by lrcore's NumPy optimizers and the reverse.
    After ``lrcore.load(path, opt)`` the weights are in :attr:`params`.

    With groups, ``[{"params": pytree, "lr": 0.1}, …]``, gradients and returned parameters are lists with a pytree for
    each group.

    Examples:
        >>> import jax, jax.numpy as jnp, lrcore.jax  # doctest: +SKIP
        >>> params = {"w": jnp.ones((2, 3)), "b": jnp.zeros(3)}  # doctest: +SKIP
        >>> opt = lrcore.jax.SGD(params, lr=0.5)  # doctest: +SKIP
        >>> gradient = jax.jit(jax.grad(lambda params: params["b"].sum() + (params["w"] ** 2).sum()))  # doctest: +SKIP
        >>> params, info = opt.step(gradient(params))  # doctest: +SKIP
        >>> params["b"], info.lr  # doctest: +SKIP
        (Array([-0.5, -0.5, -0.5], dtype=float32), 0.5)

    Note:
        A step waits for its gradients and runs on the host. Within ``jit``, ``grad``, ``vmap`` or ``scan`` use optax,
        with a schedule by :func:`to_optax <lrcore.schedules.to_optax>`.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.__module__ == __name__ and cls.__doc__:  # not for subclasses elsewhere, nor under python -OO
            numpy_form = getattr(optim, cls.__name__)
            cls.__doc__ = described(cls, completed_by=(_DOCSTRING.format(name=cls.__name__), numpy_form.__doc__))

    def _start(self, params: Any, *, grouped: bool) -> None:
        del params  # a reference would keep the given arrays in memory
        super()._start((), grouped=grouped)

    def _add_group(self, given: Mapping[str, Any]) -> None:
        tree = given["params"]
        if not isinstance(tree, Tree):  # it is one when a pickle is loaded
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
        """Update every parameter that has a gradient, and return all parameters as new arrays.

        After an error weights, state and step counts are unchanged.

        Args:
            grads: Gradients in the structure of the parameters, JAX arrays on the CPU or NumPy arrays, each with the
                shape and dtype of its parameter. None in the place of a gradient, or of a part of the structure, skips
                those parameters. With groups a sequence with an entry for each. If omitted, the mean of the accumulated
                gradients.
            grad_scale: Divisor of the gradients, in (0, inf), such as a loss scale or the number of summed
                micro-batches.

        Returns:
            The parameters after the step, in the given structure, and a :class:`StepInfo`. The arrays are new also
            after a skipped step.

        Raises:
            TypeError: If a gradient is a tracer or not an array, or has another dtype.
            ValueError: If a gradient is missing, unexpected, has another shape or is not on the CPU; if a schedule
                returns a value out of range; if parameters are float64 and ``jax_enable_x64`` is no longer set.
            FloatingPointError: If gradients were not finite ``max_skips`` times in a row, with ``skip_nonfinite``.
        """
        with self._lock:
            for tree in self._trees:
                tree.check_precision()
            info = super().step(None if grads is None else self._read(grads, "grads"), grad_scale=grad_scale)
            return self.params, info

    def accumulate(self, grads: Any, weight: float = 1.0) -> int:
        """Accumulate the gradients of a micro-batch; :meth:`step` without gradients uses their mean.

        Args:
            grads: As for :meth:`step`. A missing gradient counts as zeros, unless it is missing in all micro-batches.
            weight: The weight of the micro-batch in the mean, in (0, inf).

        Returns:
            The number of accumulated micro-batches.

        Raises:
            TypeError: As :meth:`step`.
            ValueError: As :meth:`step`. Then nothing is added.
        """
        return super().accumulate(self._read(grads, "grads"), weight)

    @property
    def params(self) -> Any:
        """The present parameters as new arrays, in the given structure; with groups a list.

        Assigning values in the same structure copies them; None in the place of a value leaves that parameter.
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
        """Return :meth:`averaged`, under the name that the other optimizers of lrcore use."""
        return self.averaged()

    def averaged(self) -> Any:  # type: ignore[override]
        """Return the averages of the weights as new arrays, in the structure of the parameters, for an evaluation.

        A parameter without an average, since it had no gradient yet, has its weight.

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
            In the other optimizers of lrcore ``averaged`` is a ``with`` block, in which the weights have these values.
            Running statistics of batch normalisation belong to the weights: recompute them for the averages.
        """
        require(self._global_options.average, self)
        with self._lock:
            averages = self.average
            weights = zip(self._names, self._stepper.weights(), strict=True)
            return self._returned([averages.get(name, weight) for name, weight in weights])

    def add_param_group(self, group: Mapping[str, Any]) -> None:
        """Add a group of parameters.

        From then on gradients and returned parameters are lists with an entry for each group. Names that exist already
        get the group's name or number as a prefix.

        Args:
            group: ``"params"``, a pytree; optionally ``"name"``, and hyperparameters that differ from the optimizer's.

        Raises:
            TypeError: If the group or a value in it has a wrong type.
            ValueError: If a value is out of range.
        """
        super().add_param_group(group)
        self._params = ()

    def _read(self, values: Any, place: str) -> Any:
        """Return gradients or other values by name, for the stepper; with groups a list."""
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
        """Return an array for each parameter as JAX arrays in the given structure."""
        rest = iter(arrays)
        trees = [tree.rebuilt([next(rest) for _ in tree]) for tree in self._trees]
        return trees if self._grouped else trees[0]

    def __repr__(self) -> str:
        return f"<jax.{super().__repr__()[1:]}"


class _NotZeroed(Flag):
    """False: JAX arrays are immutable."""

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
class Lion(Optimizer, optim.Lion): """:class:`lrcore.Lion` for JAX arrays."""
# fmt: on

if not TYPE_CHECKING:
    __all__ = ["Optimizer", *(one.__name__ for one in optim.OPTIMIZERS)]

    def __dir__() -> list[str]:
        return sorted(__all__)
