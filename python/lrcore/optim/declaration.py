"""What is particular to one optimizer, in one value."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from lrcore import _lrcore
from lrcore.optim.reference import Reference, floors

if TYPE_CHECKING:
    from lrcore.optim.hyperparameter import Hyperparameter

Arguments: TypeAlias = Mapping[str, Any]

# The compiled rules: the names of their hyperparameters and of their state arrays.
RULES = {name: (hyperparameters, state) for name, hyperparameters, state in _lrcore.rules()}


@dataclass(frozen=True, kw_only=True)
class Declaration:
    """The declaration of an optimizer.

    Signature and defaults are those of the class. The names of a rule's hyperparameters and states are those of the
    compiled rule, in ``lrcore._lrcore.rules()``.

    Attributes:
        rules: The compiled rules that the class chooses from, each with its reference function.
        hyperparameters: Those besides ``lr``, ``weight_decay`` and ``maximize``, each with its range.
        decay: The default form of weight decay.
        is_adaptive: Whether the step is normalised, so that it does not grow with the gradient. Where it grows, the
            edge of stability limits the learning rate.
        long_run: The best learning rate of a run of 300 steps, relative to that of a run of 40, as a decimal logarithm,
            and the change of this logarithm for 10 times as many steps; measured by ``benches/range_tests``.
        in_torch: The name of the same optimizer in ``torch.optim``; None if PyTorch lacks it.
        initial: The hyperparameter that state starts from; None for 0.
        floors: Returns the floor of each state array; see :func:`lrcore.optim.reference.floors`.
        formula: The update, in the table of ``docs/reference/optimizers.md``.
        state: The state arrays, in that table.
        source: The paper, in that table.
        differences: The differences from other libraries, in that table.
        cases: What tests run: pairs of a rule and arguments that choose it. The first are the defaults; then one for
            each corner that reaches another branch, rounding or rule. Tests add those with schedules, whose classes
            are not imported here.
        benchmarks: The works of ``make bench`` by name, each with its arguments besides ``lr``.
    """

    rules: Mapping[str, Reference]
    hyperparameters: Mapping[str, Hyperparameter]
    decay: str = "coupled"
    is_adaptive: bool = True
    long_run: tuple[float, float] = (0.0, -0.2)
    in_torch: str | None = None
    initial: str | None = None
    floors: Callable[..., list[float]] = floors
    formula: str
    state: str
    source: str
    differences: str
    cases: tuple[tuple[str, Arguments], ...]
    benchmarks: Mapping[str, Arguments] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if lacking := self.rules.keys() - RULES.keys():
            raise ImportError(f"the extension lacks the rules {sorted(lacking)}; rebuild it: maturin develop --release")

    def row(self, name: str) -> str:
        """Return the row of the documentation's table."""
        return f"| `{name}` | {self.formula} | {self.state} | {self.source} | {self.differences} |"
