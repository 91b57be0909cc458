"""The options of every optimizer in the signatures and docstrings of the classes that take them.

The classes take options as ``**options: Unpack[Options]``, so that a new option is declared once. Type checkers expand
that, :func:`help`, ``inspect`` and the signature help of notebooks don't: here it is expanded for them, when a class
is made.
"""

from __future__ import annotations

import inspect
import re
from functools import cache
from textwrap import fill, indent
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from lrcore.optim.options import MAX_SKIPS, NO_OPTIONS, Options

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

# One entry an option, in the order of their declaration.
DESCRIPTIONS = {
    "decay": 'How weight decay acts: ``"coupled"``, ``"decoupled"``, ``"independent"`` or ``"cautious"``.',
    "clip_value": "Clips each element of a gradient to [−clip_value, clip_value]; in (0, inf), or None.",
    "bounds": "Clips weights to (low, high) after the step; None stands for a side without a bound.",
    "zero_grads": "Sets gradients to zero once they have been used.",
    "lr_scale": "Multiplies the learning rate, of a group for instance; in [0, inf).",
    "clip_norm": "Scales all gradients so that their norm is at most this; in (0, inf], or None. inf only computes it.",
    "norm_type": "Which norm: 1, 2 or inf.",
    "skip_nonfinite": "Leaves out a step whose gradients contain an infinity or a NaN.",
    "max_skips": "How many skipped steps in a row raise FloatingPointError; at least 1.",
    "no_decay": 'Name patterns of parameters without weight decay, such as ``["bias", "*norm*"]``.',
    "average": "``EMA(…)`` or ``SWA(…)``: averages of the weights. :meth:`averaged` puts them in the place of the "
    "weights for a while, and buffers such as the statistics of batch norms back with the weights.",
    "stats": "Whether ``info.stats`` has norms of weight, gradient and update for each parameter.",
    "noise_scale": "``NoiseScale(batch=…)``: measures the gradient noise scale from accumulated micro-batches.",
}
_DEFAULTS: dict[str, Any] = {
    **NO_OPTIONS,
    "norm_type": 2,
    "skip_nonfinite": False,
    "max_skips": MAX_SKIPS,
    "stats": False,
}
_WIDTH = 100


def with_options(
    function: Callable[..., Any],
    *,
    decay: str | None,
    without: Collection[str] = (),
    more: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Replace ``**options`` by the options in what :func:`inspect.signature` returns for a function.

    Args:
        function: The function; one without such a parameter stays as it is.
        decay: The default of ``decay``; None where it is that of another optimizer.
        without: Options that it does not offer.
        more: Those that others do not offer, each None by default, with their descriptions.
    """
    signature = inspect.signature(function)
    parameters = [one for one in signature.parameters.values() if one.kind is not inspect.Parameter.VAR_KEYWORD]
    if len(parameters) == len(signature.parameters):
        return
    defaults = {**_DEFAULTS, "decay": decay}
    parameters += [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=defaults.get(name), annotation=_text(kind))
        for name, kind in Options.__annotations__.items()
        if name not in without
    ]
    parameters += [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None) for name in more]
    function.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]


def _text(annotation: Any) -> Any:
    """Return an annotation as it is written in the source, like those of the other parameters."""
    return getattr(annotation, "__forward_arg__", annotation)


def documented(
    docstring: str | None, *, without: Collection[str] = (), more: Mapping[str, str] = MappingProxyType({})
) -> str | None:
    """Return a docstring, without the indentation of its source, with an entry for each option.

    They take the place of the entry ``options:`` under Args, or become a section of their own before the examples.
    """
    if docstring is None:  # python -OO
        return None
    entries = "".join(_entry(*one) for one in {**DESCRIPTIONS, **more}.items() if one[0] not in without)
    plain = inspect.cleandoc(docstring)
    entry = re.compile(r"^ {4}options:.*\n(?: {8}.*\n)*", re.MULTILINE)
    if entry.search(plain):
        return entry.sub(lambda _: entries, plain, count=1)
    return re.sub(r"^Examples:$", lambda found: f"Options:\n{entries}\n{found[0]}", plain, count=1, flags=re.MULTILINE)


@cache
def _entry(name: str, text: str) -> str:
    """Return the lines of a docstring that describe an option. To wrap them again for each class takes milliseconds."""
    return indent(fill(f"{name}: {text}", _WIDTH, subsequent_indent="    ", break_on_hyphens=False), "    ") + "\n"


def document(
    cls: type, *, decay: str, without: Collection[str] = (), more: Mapping[str, str] = MappingProxyType({})
) -> None:
    """Expand the options in the signature and the docstring of a class that has just been made."""
    if "__init__" in vars(cls):
        with_options(vars(cls)["__init__"], decay=decay, without=without, more=more)
    if "__doc__" in vars(cls):
        cls.__doc__ = documented(cls.__doc__, without=without, more=more)
