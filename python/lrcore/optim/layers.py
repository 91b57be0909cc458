"""Parameter groups with layer-wise learning rates, for fine-tuning."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from lrcore._ranges import POSITIVE


def layerwise(params: Any, decay: float = 0.75, names: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Return a parameter group for each layer, with learning rates that decrease towards the first layer.

    Layer ``l`` of ``L``, from 1, has ``lr_scale = decay^(L − l)``, so the last layer has the full learning rate. The
    scale multiplies the learning rate of the optimizer, so all groups share one schedule.

    Args:
        params: A mapping or a sequence of layers, from the input to the output: each an array or a structure of arrays,
            or of PyTorch's tensors.
        decay: The factor from one layer to the previous one, in (0, inf).
        names: Names of the groups, instead of the keys of a mapping.

    Returns:
        Groups for any optimizer, each with ``"params"``, ``"name"`` (for a mapping, or if given) and ``"lr_scale"``, or
        for :mod:`lrcore.torch` ``"lrcore": {"lr_scale": …}``. Gradients may be given by group, or, for a mapping, in
        one mapping.

    Raises:
        TypeError: If ``params`` is neither a mapping nor a sequence.
        ValueError: If there is no layer, the decay is out of range, or the number of names differs from that of layers.

    Examples:
        >>> import lrcore, numpy as np
        >>> params = {"embedding": np.zeros(3), "body": np.zeros(3), "head": np.zeros(3)}
        >>> opt = lrcore.AdamW(lrcore.layerwise(params, decay=0.5), lr=1e-3)
        >>> [values["lr"] for values in opt.hyperparameters()]
        [0.00025, 0.0005, 0.001]
        >>> opt.step({"embedding": np.ones(3), "body": np.ones(3), "head": np.ones(3)}).applied
        True

    References:
        Howard & Ruder, *Universal Language Model Fine-tuning for Text Classification* (2018); Clark et al., *ELECTRA*
        (2020); Bao et al., *BEiT* (2022), where the embedding counts as a layer.

    Note:
        It corresponds to timm's ``layer_decay``, with its ``lr_scale`` in groups.
    """
    decay = POSITIVE.check("layerwise: decay", decay)
    if isinstance(params, Mapping):
        parts: list[Any] = [{name: layer} for name, layer in params.items()]
        given = [str(name) for name in params] if names is None else list(names)
    elif isinstance(params, Sequence) and not isinstance(params, str | bytes | np.ndarray):
        parts, given = list(params), [] if names is None else list(names)
    else:
        raise TypeError(f"layerwise: params must be a mapping or a sequence of layers, got {type(params).__name__}")
    if not parts:
        raise ValueError("layerwise: params must be at least one layer, got none")
    if given and len(given) != len(parts):
        raise ValueError(f"layerwise: names must be {len(parts)}, as the layers are, got {len(given)}")
    named = [{"name": name} for name in given] or [{} for _ in parts]
    scales = [decay ** (len(parts) - 1 - index) for index in range(len(parts))]
    options: list[dict[str, Any]] = [{"lr_scale": scale} for scale in scales]
    tensor = getattr(sys.modules.get("torch"), "Tensor", ())
    tensors = [[leaf for leaf in leaves(part) if isinstance(leaf, tensor)] for part in parts]
    if any(tensors):  # PyTorch's groups are flat, and their keys are the program's
        parts, options = tensors, [{"lrcore": own} for own in options]
    return [{"params": part, **name, **own} for part, name, own in zip(parts, named, options, strict=True)]


def leaves(structure: Any) -> Iterator[Any]:
    """Yield what nested mappings, lists and tuples contain, in order."""
    if isinstance(structure, Mapping | list | tuple):
        for part in structure.values() if isinstance(structure, Mapping) else structure:
            yield from leaves(part)
    else:
        yield structure
