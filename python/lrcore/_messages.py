"""Parts of error messages: shortened values, lists of names, and suggestions for unknown names."""

from __future__ import annotations

import itertools
import math
import reprlib
import sys
import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable


def type_and_shape(value: Any) -> str:
    """Return the type of a value, and its shape if it is an array."""
    shape = getattr(value, "shape", None)
    return f"{type(value).__name__}{f' of shape {tuple(shape)}' if isinstance(shape, tuple) else ''}"


# The largest array that a message prints.
_FEW = 8


class _Short(reprlib.Repr):
    """A repr of at most one line: large arrays are described, long containers and texts are cut."""

    def __init__(self) -> None:
        super().__init__()
        self.maxstring, self.maxother, self.maxlong = 160, 160, 500

    def repr1(self, x: Any, level: int) -> str:
        shape = getattr(x, "shape", None)
        if isinstance(shape, tuple) and not isinstance(x, type) and math.prod(shape) > _FEW:
            return type_and_shape(x)
        return super().repr1(x, level)


brief = _Short().repr


def listed(names: Iterable[Any], count: int | None = None, most: int = 5) -> str:
    """Return the first names, and the number of names if there are more.

    Args:
        names: The names, which are shown by their repr.
        count: Their number, if it is known.
        most: The most names to show.
    """
    if count is None:
        names = list(names)
        count = len(names)
    first = ", ".join(brief(name) for name in itertools.islice(names, most))
    return f"{first}, … ({count} in all)" if count > most else first


def did_you_mean(given: str, known: Collection[str]) -> str:
    """Return ``"; did you mean …?"`` with similar names and synonyms, or an empty string.

    Args:
        given: The unknown name.
        known: The known names.
    """
    meant = [name for name in dict.fromkeys(_SYNONYMS.get(_plain(given), ())) if name in known]
    if not meant and (hint := _HINTS.get(_plain(given))) is not None:
        return f"; {hint}"
    if not meant:
        import difflib  # imported here, since it takes as long as the rest of this module

        by_plain = {_plain(name): name for name in known}
        meant = [by_plain[near] for near in difflib.get_close_matches(_plain(given), by_plain, n=2, cutoff=0.75)]
    if meant:
        examples = [f"{name!r}{_EXAMPLES.get(name, '') if name != given else ''}" for name in meant]
        return f"; did you mean {' or '.join(examples)}?"
    return ""


def warn(message: str) -> None:
    """Warn at the line outside of lrcore and torch that led here."""
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_globals.get("__name__", "").split(".")[0] in ("lrcore", "torch"):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, stacklevel=level)


def _plain(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "").replace(" ", "")


# Names of other libraries: PyTorch, Keras, optax, Hugging Face, Lightning, timm, DeepSpeed, scikit-learn.
_NAMES: dict[tuple[str, ...], str] = {
    ("lr", "learning_rate_init"): (
        "learning_rate rate base_lr init_lr lr0 initial_lr peak_lr max_lr step_size stepsize eta eta0 lr_schedule "
        "lr_scheduler schedule scheduler learning_rate_init lr"
    ),
    ("betas", "beta_1", "alpha"): "beta beta1 b1 beta_1 adam_beta1 beta2 b2 beta_2 adam_beta2 betas",
    ("eps", "epsilon"): "epsilon adam_epsilon eps_root opt_eps eps",
    ("weight_decay",): "wd l2 l2_penalty l2_reg decay_rate lambda lambd weight_decay_rate regularization decay_weight",
    ("decay",): "decoupled decoupled_weight_decay decay_mode weight_decouple fixed_decay correct_bias decoupled_decay",
    ("momentum",): "mu mom beta beta1 b1",
    ("alpha",): "rho discounting_factor smoothing_constant",
    ("nesterov",): "use_nesterov nesterovs nesterovs_momentum nesterov_momentum",
    ("amsgrad",): "ams use_amsgrad",
    ("maximize",): "maximise ascend minimize",
    ("initial_accumulator_value",): "initial_accumulator initial_accum init_acc",
    ("clip_norm",): (
        "clip clipping max_grad_norm max_norm clipnorm global_clipnorm clip_grad clip_grad_norm grad_clip "
        "grad_clipping grad_clip_norm gradient_clip gradient_clip_val gradient_clipping gradient_clip_norm "
        "max_gradient_norm clip_by_global_norm clip_global_norm"
    ),
    ("clip_value",): "clipvalue clip clip_grad_value grad_clip_value gradient_clip_value clip_by_value max_grad_value",
    ("norm_type",): "norm grad_norm_type clip_norm_type p_norm",
    ("skip_nonfinite",): "skip_nan skip_nans skip_inf skip_infs skip_not_finite check_nan nan_guard apply_if_finite",
    ("max_skips",): "max_consecutive_errors max_consecutive_skips max_skipped max_skip skips",
    ("no_decay",): (
        "no_weight_decay exclude_from_weight_decay no_decay_params no_decay_names skip_decay weight_decay_exclude "
        "decay_exclude nodecay filter_bias_and_bn bias_decay"
    ),
    ("average",): (
        "ema use_ema ema_decay ema_momentum model_ema ema_overwrite_frequency swa use_swa averaging average_weights "
        "polyak weight_average averaged avg exponential_moving_average"
    ),
    ("bounds",): "clamp constraint constraints box limits bound clip_weights weight_bounds projection",
    ("zero_grads",): "zero_grad zerograd set_to_zero clear_grads reset_grads set_to_none",
    ("lr_scale",): "lr_mult lr_multiplier lr_factor learning_rate_scale learning_rate_multiplier lr_ratio",
    ("stats",): "statistics log_stats collect_stats metrics",
    ("noise_scale",): "gradient_noise_scale gns noise",
    ("params",): "parameters param weights variables model_parameters",
    ("name",): "group_name label",
}
_SYNONYMS: dict[str, tuple[str, ...]] = {}
for _meant, _words in _NAMES.items():
    for _word in _words.split():
        _SYNONYMS[_plain(_word)] = _SYNONYMS.get(_plain(_word), ()) + _meant
_EXAMPLES = {
    "average": " (average=lrcore.EMA(0.999))",
    "betas": " (betas=(0.9, 0.999))",
}
_HINTS = {
    _plain(word): hint
    for words, hint in {
        "grad_scale loss_scale scale gradient_scale": "it is an argument of step: step(grads, grad_scale=...)",
        "accumulation_steps gradient_accumulation_steps accumulate accumulate_grad_batches grad_accum": (
            "accumulate(grads) adds gradients"
        ),
        "warmup warmup_steps num_warmup_steps total_steps num_training_steps cosine decay_steps": (
            "pass a schedule as lr: schedules.Cosine(lr, steps=...).warmup(...)"
        ),
        "foreach fused capturable differentiable": "it selects an implementation in PyTorch; lrcore has only one",
        "device dtype": "weights stay on the CPU and keep their dtype",
    }.items()
    for word in words.split()
}
