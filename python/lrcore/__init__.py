"""lrcore: the learning rate and everything that it multiplies.

Fused optimizer steps, written in Rust and applied in place to NumPy arrays, and schedules for every hyperparameter.

Examples:
    >>> import numpy as np
    >>> import lrcore
    >>> from lrcore import schedules
    >>> params = {"w": np.ones((3, 2), dtype=np.float32), "b": np.zeros(2, dtype=np.float32)}
    >>> opt = lrcore.AdamW(params, lr=schedules.Cosine(3e-4, steps=10_000).warmup(500), weight_decay=0.01)
    >>> grads = {"w": np.ones((3, 2), dtype=np.float32), "b": None}
    >>> opt.step(grads).step
    1
"""

from typing import TYPE_CHECKING, Any

from lrcore import optim, schedules
from lrcore._environment import apply as _apply_environment
from lrcore._lrcore import __version__, get_num_threads, get_simd_level, set_num_threads, set_simd_level, simd_levels
from lrcore.optim import *  # noqa: F403

if TYPE_CHECKING:
    from lrcore.checkpoint import latest, load, save

_apply_environment()
del _apply_environment

__all__ = [
    "__version__",
    "get_num_threads",
    "get_simd_level",
    "latest",
    "load",
    "save",
    "schedules",
    "set_num_threads",
    "set_simd_level",
    "simd_levels",
]
__all__ += optim.__all__


def __getattr__(name: str) -> Any:
    # What only some programs need is imported when it is first asked for.
    if name in ("latest", "load", "save"):
        from lrcore import checkpoint

        return getattr(checkpoint, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
