"""Signatures and docstrings of optimizers, completed when a class is made.

Classes take the options of every optimizer as ``**options: Unpack[Options]``, so that a new option is declared once.
Type checkers expand that; :func:`help`, ``inspect`` and notebooks do not, so it is expanded for them. The forms of an
optimizer in ``lrcore.torch`` and ``lrcore.jax`` have the docstring of its NumPy form, except for the sections and
arguments that their own docstrings describe.
"""

from __future__ import annotations

import inspect
import re
from functools import cache
from textwrap import fill, indent
from types import FunctionType, MappingProxyType
from typing import TYPE_CHECKING, Any

from lrcore.optim.options import NO_OPTIONS, GlobalOptions, Options

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

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
_DEFAULTS: dict[str, Any] = {**NO_OPTIONS, **GlobalOptions._field_defaults, "norm_type": 2, "no_decay": None}
_WIDTH = 100
_SECTION = re.compile(r"^([A-Z][a-z]+):\n", re.MULTILINE)
_ENTRY = re.compile(r"^ {4}(\w+):.*\n(?: {8}.*\n)*", re.MULTILINE)
_NONE: Mapping[str, str] = MappingProxyType({})


def document(
    cls: type,
    *,
    decay: str,
    without: Collection[str] = (),
    more: Mapping[str, str] = _NONE,
    completed_by: Sequence[str | None] = (),
) -> None:
    """Complete the signature and the docstring of a class that has just been made.

    Args:
        cls: The class.
        decay: The default of the option ``decay``.
        without: Options that it does not have.
        more: Options that others do not have, each None by default, with their descriptions.
        completed_by: The docstrings that complete its own, the most specific first.
    """
    init: Any = cls.__init__  # type: ignore[misc]
    if any(one.kind is inspect.Parameter.VAR_KEYWORD for one in inspect.signature(init).parameters.values()):
        if "__init__" not in vars(cls):  # a constructor that several classes share
            init = _copied(init, cls)
            cls.__init__ = init  # type: ignore[misc]
        expand(init, decay=decay, without=without, more=more)
    if vars(cls).get("__doc__"):  # python -OO has none
        cls.__doc__ = described(cls, more=more, completed_by=completed_by)


def _copied(function: Any, cls: type) -> Any:
    copy = FunctionType(
        function.__code__, function.__globals__, function.__name__, function.__defaults__, function.__closure__
    )
    copy.__kwdefaults__ = function.__kwdefaults__
    copy.__annotations__ = function.__annotations__
    copy.__module__, copy.__qualname__ = cls.__module__, f"{cls.__qualname__}.{function.__name__}"
    return copy


def expand(
    function: Callable[..., Any], *, decay: str | None, without: Collection[str] = (), more: Mapping[str, str] = _NONE
) -> None:
    """Replace ``**options`` by the options in what :func:`inspect.signature` returns for a function.

    Args:
        function: The function.
        decay: The default of ``decay``; None where it is that of another optimizer.
        without: Options that it does not have.
        more: Those that others do not have, each None by default, with their descriptions.
    """
    signature = inspect.signature(function)
    parameters = [one for one in signature.parameters.values() if one.kind is not inspect.Parameter.VAR_KEYWORD]
    defaults = {**_DEFAULTS, "decay": decay}
    parameters += [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=defaults[name], annotation=_text(kind))
        for name, kind in Options.__annotations__.items()
        if name not in without
    ]
    parameters += [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None) for name in more]
    function.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]


def _text(annotation: Any) -> Any:
    """Return an annotation as it is written in the source, like those of the other parameters."""
    return getattr(annotation, "__forward_arg__", annotation)


def described(target: Any, *, more: Mapping[str, str] = _NONE, completed_by: Sequence[str | None] = ()) -> str | None:
    """Return the docstring of a class or a function with an entry for each argument and option of its signature.

    Sections, entries of arguments and the text after these are those of the first docstring that has them; the text
    before the sections is that of all. Without a section Args the docstring stays as it is.
    """
    docstrings = [_sections(one) for one in (target.__doc__, *completed_by)]
    sections = {name: text for one in reversed(docstrings) for name, text in one.items()}
    if "Args" not in sections:  # python -OO has no docstrings
        return target.__doc__  # type: ignore[no-any-return]
    entries = {name: _entry(name, text) for name, text in {**DESCRIPTIONS, **more}.items()}
    rest = ""
    for one in reversed(docstrings):
        given = one.get("Args", "")
        entries |= {found[1]: found[0] for found in _ENTRY.finditer(given)}
        rest = _ENTRY.sub("", given).strip() or rest
    arguments = "".join(entries[name] for name in inspect.signature(target).parameters if name in entries)
    sections["Args"] = f"{arguments}\n{rest}\n\n" if rest else f"{arguments}\n"
    sections[""] = "\n\n".join(filter(None, (one[""].strip() for one in docstrings))) + "\n\n"
    return "".join(f"{name}:\n{text}" if name else text for name, text in sections.items()).rstrip()


def _sections(docstring: str | None) -> dict[str, str]:
    """Return the text before the first section, under an empty name, and the text of each section."""
    intro, *parts = _SECTION.split(inspect.cleandoc(docstring or "") + "\n\n")
    return {"": intro, **dict(zip(parts[::2], parts[1::2], strict=True))}


@cache
def _entry(name: str, text: str) -> str:
    """Return the lines of a docstring that describe an option. Wrapping them for each class would take milliseconds."""
    return indent(fill(f"{name}: {text}", _WIDTH, subsequent_indent="    ", break_on_hyphens=False), "    ") + "\n"
