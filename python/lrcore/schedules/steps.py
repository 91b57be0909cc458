"""Conversion of epochs, samples and tokens to steps."""

from __future__ import annotations

import math

from lrcore._ranges import NON_NEGATIVE, check_count


def steps_in(
    *,
    epochs: float | None = None,
    samples: int | None = None,
    tokens: int | None = None,
    dataset: int | None = None,
    batch: int,
    sequence: int | None = None,
    drop_last: bool = False,
) -> int:
    """Return the number of steps for a number of epochs, samples or tokens.

    Args:
        epochs: The number of passes over ``dataset`` samples; can be fractional. Or
        samples: The number of samples. Or
        tokens: The number of tokens, in samples of ``sequence`` tokens each.
        dataset: The number of samples in the dataset.
        batch: The samples per step, at least 1.
        sequence: The tokens per sample.
        drop_last: Whether a smaller last batch of an epoch is skipped; otherwise it counts as a step.

    Raises:
        TypeError: If not exactly one of epochs, samples and tokens is given, or a number that it needs is missing.
        ValueError: If a number is out of range.

    Examples:
        >>> from lrcore import schedules
        >>> schedules.steps_in(epochs=10, dataset=60_000, batch=128)
        4690
        >>> schedules.steps_in(tokens=300_000_000, sequence=1024, batch=512)
        573
        >>> lr = schedules.Cosine(0.1, steps=schedules.steps_in(epochs=3, dataset=1000, batch=10))
    """
    batch = check_count("steps_in: batch", batch, least=1)
    if sum(given is not None for given in (epochs, samples, tokens)) != 1:
        raise TypeError("steps_in: exactly one of epochs, samples and tokens must be given")
    if epochs is not None:
        if dataset is None:
            raise TypeError("steps_in: epochs need the number of samples in the dataset")
        passes = NON_NEGATIVE.check("steps_in: epochs", epochs)
        size = check_count("steps_in: dataset", dataset, least=1)
        per_epoch = size // batch if drop_last else -(-size // batch)
        # Products such as 1.1 · 10 exceed the exact result by rounding.
        steps = passes * per_epoch
        return math.ceil(steps - 1e-9 * max(steps, 1.0))
    per_step = batch
    if tokens is not None:
        if sequence is None:
            raise TypeError("steps_in: tokens need the tokens of a sequence")
        per_step *= check_count("steps_in: sequence", sequence, least=1)
    amount = check_count("steps_in: samples", samples if tokens is None else tokens)
    return amount // per_step if drop_last else -(-amount // per_step)
