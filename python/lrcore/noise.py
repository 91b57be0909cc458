"""The gradient noise scale: the batch size up to which larger batches pay off."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from lrcore._messages import brief
from lrcore._ranges import FRACTION, NON_NEGATIVE, POSITIVE, check_count
from lrcore._running_average import RunningAverages

__all__ = ["BatchSizeRecommendation", "NoiseScale"]


def __dir__() -> list[str]:
    return sorted(__all__)


# Updates are averaged in bunches of this size, or when a value is read: in a training loop each by itself takes three
# times as long, since its code and data have left the cache.
BUNCH = 32


class BatchSizeRecommendation(NamedTuple):
    """A batch size, and the learning rate for it.

    Attributes:
        batch: The samples of a step: the noise scale, where doubling the batch saves a quarter of the steps.
        lr: The learning rate for this batch, scaled from that of the current batch.
    """

    batch: int
    lr: float


class NoiseScale:
    """The simple noise scale of the gradient, ``S / G²``, from gradients of two batch sizes.

    With the mean squared norms ``|g_b|²`` at ``b`` samples and ``|g_B|²`` at ``B``::

        G² = (B |g_B|² − b |g_b|²) / (B − b)          the squared norm of the true gradient
        S  = (|g_b|² − |g_B|²) / (1/b − 1/B)          the trace of the covariance of one sample's gradient

    Both are unbiased, and averaged before they are divided. As the option ``noise_scale=NoiseScale(batch=32)`` of an
    optimizer it is updated by ``opt.accumulate``: the norms of the micro-batches and of their mean are computed in the
    pass that adds them. Above 16,384 weights each step reads a sample of about that many, a different one each time. It
    is available as ``opt.noise_scale``.

    Args:
        batch: The samples of a micro-batch, at least 1.
        smoothing: The decay of the moving averages, in [0, 1). While gradients shrink, the value lags by
            ``1 / (1 − smoothing)`` steps, which its uncertainty does not show.

    Raises:
        TypeError: If an argument is not a number.
        ValueError: If one is out of range.

    Examples:
        >>> import lrcore, numpy as np
        >>> opt = lrcore.SGD({"w": np.zeros(1000)}, lr=0.0, noise_scale=lrcore.NoiseScale(batch=8, smoothing=0.99))
        >>> rng = np.random.default_rng(0)
        >>> for _ in range(300):
        ...     for _ in range(4):  # a gradient of 0.1 everywhere, and a variance of 1 for each sample
        ...         count = opt.accumulate({"w": 0.1 + rng.standard_normal(1000) / np.sqrt(8)})
        ...     info = opt.step()
        >>> abs(opt.noise_scale.value - 1.0 / 0.1**2) < 5.0  # S / G² = 1000 / (1000 · 0.01)
        True

    References:
        McCandlish, Kaplan, Amodei et al., *An Empirical Model of Large-Batch Training* (2018), appendix A.1.
    """

    def __init__(self, batch: int, smoothing: float = 0.95) -> None:
        self.batch = check_count("NoiseScale: batch", batch, least=1)
        self.smoothing = FRACTION.check("NoiseScale: smoothing", smoothing)
        # Updates that are not averaged yet, to keep steps short.
        self._pending: list[tuple[float, int, float, int]] = []
        self._updates = 0
        # S, G², their squares, and their product.
        self._averages = RunningAverages(self.smoothing, [0.0] * 5)
        self._largest = batch
        # Whether the optimizer has to pass the last update to schedules.
        self.has_update = False

    def update(self, small: float, small_batch: int, large: float, large_batch: int) -> None:
        """Add the squared norms of gradients at two batch sizes.

        Args:
            small: The mean of the squared norms at ``small_batch`` samples.
            small_batch: A number of samples.
            large: The mean of the squared norms at ``large_batch`` samples.
            large_batch: A larger number of samples.

        Raises:
            TypeError: If an argument is not a number.
            ValueError: If one is out of range.
        """
        small, large = NON_NEGATIVE.check("small", small), NON_NEGATIVE.check("large", large)
        small_batch = check_count("small_batch", small_batch, least=1)
        self._add(small, small_batch, large, check_count("large_batch", large_batch, least=small_batch + 1))

    def _add(self, small: float, small_batch: int, large: float, large_batch: int) -> None:
        """Add an update without checks; it is averaged later."""
        self._pending.append((small, small_batch, large, large_batch))
        self._largest, self.has_update = large_batch, True
        if len(self._pending) >= BUNCH:
            self._average_pending()

    def _average_pending(self) -> None:
        if not self._pending:
            return
        averages = RunningAverages(self.smoothing, self._averages.totals, self._averages.weight)
        for small, b, large, big in self._pending:
            signal = (big * large - b * small) / (big - b)
            noise = (small - large) / (1.0 / b - 1.0 / big)
            averages.add(noise, signal, noise * noise, signal * signal, noise * signal)
        # One call, so that Ctrl-C can't count updates twice or drop them.
        self.__dict__.update(_averages=averages, _updates=self._updates + len(self._pending), _pending=[])

    @property
    def updates(self) -> int:
        """The number of updates."""
        return self._updates + len(self._pending)

    def _means(self) -> list[float]:
        self._average_pending()
        return self._averages.values

    @property
    def noise(self) -> float:
        """``S``, the trace of the covariance of one sample's gradient, or NaN before the first update."""
        return self._means()[0]

    @property
    def signal(self) -> float:
        """``G²``, the squared norm of the gradient, or NaN before the first update."""
        return self._means()[1]

    @property
    def value(self) -> float:
        """The noise scale in samples, or NaN while no gradient exceeds the noise."""
        noise, signal = self._means()[:2]
        return max(noise, 0.0) / signal if signal > 0.0 else math.nan

    @property
    def uncertainty(self) -> float:
        """The relative standard error of the value, from the variance of the updates; infinite while unknown."""
        noise, signal, noise2, signal2, both = self._means()
        # The effective number of updates in an exponential moving average.
        keep = self.smoothing
        count = min(self.updates, (1.0 + keep) / (1.0 - keep))
        if count < 2.0 or not (noise > 0.0 and signal > 0.0):
            return math.inf
        relative = (noise2 - noise**2) / noise**2 + (signal2 - signal**2) / signal**2
        relative -= 2.0 * (both - noise * signal) / (noise * signal)
        return math.sqrt(max(relative, 0.0) / (count - 1.0))

    def suggest(self, lr: float) -> BatchSizeRecommendation:
        """Return the noise scale as a batch size, and the learning rate for it.

        For SGD the learning rate ``lr`` of the current batch ``B`` becomes ``lr (1 + N/B) / (1 + N/B')`` for another
        batch ``B'``, with the noise scale ``N``: proportional to the batch far below ``N``, constant far above.

        Args:
            lr: The learning rate for the current batch, all micro-batches of a step together.

        Raises:
            TypeError: If the learning rate is not a number.
            ValueError: If it is out of range, or the noise scale is not known yet.
        """
        lr = POSITIVE.check("suggest: lr", lr)
        scale = self.value
        if not scale > 0.0:
            raise ValueError("suggest: the noise scale is not known yet; take more steps or more micro-batches")
        batch = max(round(scale), 1)
        return BatchSizeRecommendation(batch, lr * (1.0 + scale / self._largest) / (1.0 + scale / batch))

    def gain(self, batch: int | None = None) -> float:
        """Return how many steps of one micro-batch a step of a larger batch is worth: 1 to ``batch / micro-batch``.

        Args:
            batch: The larger batch size, at least that of a micro-batch; None is the one of the last update.

        Raises:
            TypeError: If it is not a number.
            ValueError: If it is out of range.
        """
        batch = self._largest if batch is None else check_count("gain: batch", batch, least=self.batch)
        noise, signal = self._means()[:2]
        noise, signal = max(noise, 0.0), max(signal, 0.0)
        least = noise / batch + signal
        return (noise / self.batch + signal) / least if least > 0.0 else 1.0

    def state(self) -> dict[str, Any]:
        """Return the state as plain values."""
        self._average_pending()
        return {
            "batch": self.batch, "smoothing": self.smoothing, "updates": self._updates,
            "weight": self._averages.weight, "sums": self._averages.totals.copy(),
            "largest": self._largest,
        }  # fmt: skip

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restore the state that :meth:`state` returned.

        Raises:
            ValueError: If it is not such a state.
        """
        self.check_state(state)
        self._pending.clear()
        self.has_update = False
        self.batch, self.smoothing, self._updates = state["batch"], state["smoothing"], state["updates"]
        self._averages = RunningAverages(self.smoothing, state["sums"], state["weight"])
        self._largest = state["largest"]

    def check_state(self, state: Any) -> None:
        """Raise a ValueError unless :meth:`state` may return the value."""
        known = self.state()
        if isinstance(state, Mapping) and state.keys() == known.keys() and isinstance(state["sums"], list | tuple):
            counts = [state[name] for name in ("batch", "updates", "largest")]
            numbers = [state["smoothing"], state["weight"], *state["sums"]]
            if (
                len(state["sums"]) == len(known["sums"])
                and all(isinstance(count, int) and count >= 0 for count in counts)
                and all(isinstance(number, int | float) for number in numbers)
            ):
                return
        raise ValueError(f"noise_scale: the state must have {', '.join(known)}, got {brief(state)}")

    def __repr__(self) -> str:
        """Return the value with its uncertainty."""
        if not self.updates:
            return f"NoiseScale(batch={self.batch}, smoothing={self.smoothing})"
        error = "unknown" if math.isinf(self.uncertainty) else f"{self.uncertainty:.0%}"
        return f"<NoiseScale: {self.value:.4g} samples ± {error}, after {self.updates} updates>"
