"""Matches the groups of a state dict with those of an optimizer by the names of parameters.

PyTorch loads state by position, and does not compare the names under ``"param_names"``. A model with its parameters in
another order would get the state of other parameters. So where both sides have names, these decide::

    same names in the same order → load by position
    same names, in another order → reorder the saved groups and their parameters
    other names                  → ValueError, which lists missing and unexpected ones
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from lrcore._messages import listed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Groups = Sequence[Mapping[str, Any]]

# Parts of names that come from DistributedDataParallel, torch.compile, FSDP and activation checkpointing.
_WRAPPERS = frozenset({"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})


def matched(saved: Groups, groups: Groups) -> Groups:
    """Return the groups of a state dict with groups and parameters in the order and by the names of an optimizer's.

    Args:
        saved: The groups of the state dict, which are not modified.
        groups: Those of the optimizer.

    Returns:
        The reordered groups; ``saved`` itself where one side has no names, or where the numbers of groups or parameters
        differ, which PyTorch refuses.

    Raises:
        ValueError: If the names differ, or are in other groups.
    """
    own, others = _names_of(groups), _names_of(saved)
    if own is None or others is None or own == others or not _have_one_size(own, others):
        return saved
    others = _in_terms_of(others, own)
    if own == others:
        return [{**one, "param_names": list(names)} for one, names in zip(saved, own, strict=True)]
    _check_same_names(own, others)
    at = {name: (index, i) for index, names in enumerate(others) for i, name in enumerate(names)}
    empty = iter([index for index, names in enumerate(others) if not names])
    ordered = []
    for index, names in enumerate(own):
        sources = sorted({at[name][0] for name in names}) or [next(empty, index)]
        if len(sources) > 1 or len(others[sources[0]]) != len(names):
            raise ValueError(
                f"the parameters of param_groups[{index}], {_shown(names)}, are in other groups in the state dict: "
                f"{'; '.join(_shown(others[source]) for source in sources)}"
            )
        (source,) = sources
        numbers = [saved[source]["params"][at[name][1]] for name in names]
        ordered.append({**saved[source], "params": numbers, "param_names": list(names)})
    return ordered


def _names_of(groups: Groups) -> list[list[str]] | None:
    """Return the names of all parameters, by group, or None if one has no name."""
    names = [list(group.get("param_names") or ()) for group in groups]
    are_named = all(len(own) == len(group["params"]) for own, group in zip(names, groups, strict=True))
    return names if are_named and any(names) else None


def _have_one_size(own: list[list[str]], others: list[list[str]]) -> bool:
    return len(own) == len(others) and sum(map(len, own)) == sum(map(len, others))


def _in_terms_of(others: list[list[str]], own: list[list[str]]) -> list[list[str]]:
    """Return the saved names as the optimizer spells them, if they differ only in parts that wrappers insert."""
    there = {name for names in others for name in names}
    if there == {name for names in own for name in names}:
        return others
    known = {_unwrapped(name): name for names in own for name in names}
    if there and all(_unwrapped(name) in known for name in there) and len(known) == len(there):
        return [[known[_unwrapped(name)] for name in names] for names in others]
    return others


def _unwrapped(name: str) -> str:
    return ".".join(part for part in str(name).split(".") if part not in _WRAPPERS)


def _check_same_names(own: list[list[str]], others: list[list[str]]) -> None:
    counts, there = (Counter(name for names in side for name in names) for side in (own, others))
    if counts != there:
        raise ValueError(
            f"the state dict has parameters of other names: missing {_shown(counts - there)}, unexpected "
            f"{_shown(there - counts)}; without param_names in its groups it is loaded by position"
        )
    twice = [name for name, count in counts.items() if count > 1]
    if twice:
        raise ValueError(
            f"the state dict has its parameters in another order, and names don't tell which is which: {_shown(twice)} "
            "stand for several"
        )


def _shown(names: Any) -> str:
    return f"[{listed(names)}]"
