"""The options of every optimizer: operations on gradients and weights within the pass of the step."""

from __future__ import annotations

import fnmatch
import math
import re
from collections.abc import Mapping, Sequence, Set
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict, get_args

from lrcore._messages import brief, did_you_mean, listed, warn
from lrcore._ranges import POSITIVE, Range, as_number, check_count
from lrcore.optim.averages import EMA, SWA, Average
from lrcore.optim.hyperparameter import FLAG, Bounds, Choice, Hyperparameter, Number, Optional
from lrcore.optim.metric_trackers import apply_factors

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from typing import Self

    from lrcore.noise import NoiseScale
    from lrcore.schedules import Schedule
    from lrcore.schedules.metrics import Tracker

DECAYS = ("coupled", "decoupled", "independent", "cautious")
MAX_SKIPS = 10
NORMS = {1: "1", 2: "2", math.inf: "inf"}
# With infinity the norm is computed, and nothing is clipped.
_CLIP_NORM = Optional(Number(Range(opened=True, closed=True), takes_factors=True))

# Options that each group may have.
GROUP_OPTIONS: dict[str, Hyperparameter] = {
    "decay": Choice(DECAYS),
    "clip_value": Optional(Number(POSITIVE, takes_factors=True)),
    "bounds": Bounds(),
    "zero_grads": FLAG,
    "lr_scale": Number(takes_factors=True),
}
# The values that disable an option. The form of weight decay has none: it has no effect if the decay is 0.
NO_OPTIONS: dict[str, Any] = {"clip_value": None, "bounds": None, "zero_grads": False, "lr_scale": 1.0}


class Options(TypedDict, total=False):
    """The options of every optimizer, keyword only.

    The first five are also options of a group; the others are global.
    """

    decay: str
    clip_value: float | Schedule | None
    bounds: tuple[float | None, float | None] | None
    zero_grads: bool
    lr_scale: float | Schedule
    clip_norm: float | Schedule | None
    norm_type: float | str
    skip_nonfinite: bool
    max_skips: int
    no_decay: str | Sequence[str] | Set[str] | None
    average: EMA | SWA | None
    stats: bool
    noise_scale: NoiseScale | None


class GlobalOptions(NamedTuple):
    """The options that apply to all groups together, checked."""

    clip_norm: float | Schedule | None = None
    norm_type: float = 2.0
    skip_nonfinite: bool = False
    max_skips: int = MAX_SKIPS
    no_decay: tuple[str, ...] = ()
    average: Average | None = None
    stats: bool = False
    noise_scale: NoiseScale | None = None

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Self:
        """Check the values, or raise TypeError or ValueError."""
        values = {**cls._field_defaults, **given}
        clip_norm = _CLIP_NORM.check("clip_norm", values["clip_norm"])
        norm_type = _norm_type(values["norm_type"])
        skip_nonfinite = FLAG.check("skip_nonfinite", values["skip_nonfinite"])
        max_skips = check_count("max_skips", values["max_skips"], least=1)
        # Defaults are accepted, since programs with a table of settings pass them.
        if norm_type != 2.0 and clip_norm is None and not skip_nonfinite:
            raise ValueError("norm_type needs clip_norm, or skip_nonfinite: no norm is computed without them")
        if max_skips != MAX_SKIPS and not skip_nonfinite:
            raise ValueError("max_skips needs skip_nonfinite=True: no step is skipped without it")
        average = values["average"]
        if average is not None and not isinstance(average, get_args(Average)):
            raise TypeError(f"average must be EMA(…), SWA(…) or None, got {brief(average)}")
        stats = FLAG.check("stats", values["stats"])
        noise_scale = values["noise_scale"]
        if noise_scale is not None:
            from lrcore.noise import NoiseScale

            if not isinstance(noise_scale, NoiseScale):
                raise TypeError(f"noise_scale must be NoiseScale(batch=…) or None, got {brief(noise_scale)}")
        patterns = patterns_of(values["no_decay"])
        return cls(clip_norm, norm_type, skip_nonfinite, max_skips, patterns, average, stats, noise_scale)

    @property
    def needs_norm(self) -> bool:
        """Whether a step computes the norm of all gradients."""
        return self.clip_norm is not None or self.skip_nonfinite

    @property
    def is_plain(self) -> bool:
        """Whether no global option needs work at a step."""
        return not self.needs_norm and not self.stats and self.noise_scale is None

    def decays(self, name: str) -> bool:
        """Return whether weight decay applies to the parameter of that name."""
        return not (self.no_decay and is_matched(name, self.no_decay))

    def for_stepper(self, step: int, trackers: Sequence[Tracker]) -> dict[str, Any]:
        """Return the arguments of ``Stepper.set_options`` at a step, with the present factors of metric trackers."""
        clip_norm = apply_factors(self.clip_norm, trackers)
        most = _CLIP_NORM.at("clip_norm", clip_norm, step).get("clip_norm")
        return {
            "norm": NORMS[self.norm_type] if self.needs_norm else None,
            # infinity divided by an infinite norm would be NaN.
            "clip_norm": None if most == math.inf else most,
            "skip_nonfinite": self.skip_nonfinite,
            "average": None if self.average is None else self.average.for_stepper(),
            "stats": self.stats,
            "noise_scale": self.noise_scale is not None,
        }


def _norm_type(given: Any) -> float:
    norm_type = math.inf if isinstance(given, str) and given == "inf" else given
    number = as_number(norm_type)
    if number is None or number not in NORMS:
        raise ValueError(f"norm_type must be 1, 2 or inf, got {brief(given)}")
    return float(number)


def patterns_of(given: Any) -> tuple[str, ...]:
    """Return the patterns of ``no_decay`` as a tuple, or raise a TypeError."""
    if given is None:
        return ()
    patterns = (given,) if isinstance(given, str) else given
    if not isinstance(patterns, Sequence | Set) or not all(isinstance(pattern, str) for pattern in patterns):
        raise TypeError(f'no_decay must be name patterns, such as ["*bias", "*norm*"], or None, got {brief(given)}')
    # The order of a set differs between processes.
    return tuple(sorted(patterns) if isinstance(patterns, Set) else patterns)


def not_of_group(name: str, place: str, known: Collection[str]) -> ValueError:
    """Return the error for an unknown key of a group. For a global option it says where to give it."""
    message = f"{place} has no {name!r}; it has {', '.join(known)}"
    if name in Options.__annotations__:
        message += f"; {name} is for all groups together: give {name}=… to the optimizer"
    elif isinstance(name, str):
        message += did_you_mean(name, known)
    return ValueError(message)


def is_matched(name: str, patterns: tuple[str, ...]) -> bool:
    """Return whether a pattern matches a dotted name, or the part after one of its dots.

    ``bias`` matches ``layers.0.bias``, but neither ``debias`` nor ``bias.extra``. A pattern also matches its own text,
    with brackets taken literally.
    """
    matches, after_dots = _matcher(patterns)
    return name in patterns or name.endswith(after_dots) or matches(name) is not None


@lru_cache(maxsize=64)
def _matcher(patterns: tuple[str, ...]) -> tuple[Callable[[str], re.Match[str] | None], tuple[str, ...]]:
    """Return the match function of one regular expression for all patterns, and each pattern after a dot."""
    either = "|".join(f"(?:{fnmatch.translate(pattern)})" for pattern in patterns)
    return re.compile(rf"(?s:.*\.)?(?:{either})").match, tuple(f".{pattern}" for pattern in patterns)


def warn_of_unmatched(patterns: tuple[str, ...], names: Collection[str]) -> None:
    """Warn of patterns of ``no_decay`` that match none of an optimizer's parameters."""
    for pattern in patterns:
        if not any(is_matched(name, (pattern,)) for name in names):
            warn(f"no_decay: the pattern {pattern!r} matches no parameter{_near(pattern, names)}")


def _near(pattern: str, names: Collection[str]) -> str:
    """Return a suggestion for a pattern that matches no name."""
    text = pattern.strip("*.")
    within = [name for name in names if text and text.lower() in name.lower()]
    if within:
        start = within[0].lower().index(text.lower())
        wider = f"*{within[0][start : start + len(text)]}*"
        return f"; {wider!r} matches {sum(is_matched(name, (wider,)) for name in names)}, such as {within[0]!r}"
    import difflib

    # Endings, since many names differ only in a number.
    endings = {".".join(name.split(".")[-parts:]) for name in names for parts in (1, 2)}
    near = difflib.get_close_matches(text, sorted(endings)[:2000], n=3)
    return f"; did you mean {' or '.join(map(repr, near))}?" if near else f"; there are {listed(names)}"


def split(
    given: Mapping[str, Any],
    decay: str,
    where: str,
    own: Collection[str],
    known: Collection[str] = tuple(Options.__annotations__),
) -> tuple[dict[str, Any], GlobalOptions]:
    """Return the value of each group option, and the global options.

    Args:
        given: The keyword arguments of an optimizer.
        decay: The default form of weight decay.
        where: The optimizer's name, for messages.
        own: The names of the optimizer's other arguments, for messages.
        known: The names of its options.

    Raises:
        TypeError: If there is no such option, or a value is of a wrong type.
        ValueError: If a value is out of range, or values contradict each other.
    """
    for name in given:
        if name not in known:
            meant = did_you_mean(name, [*own, *known])
            raise TypeError(f"{where} has no argument {name!r}; its options are {', '.join(known)}{meant}")
    defaults = {"decay": decay, **NO_OPTIONS}
    return {name: given.get(name, default) for name, default in defaults.items()}, GlobalOptions.of(given)
