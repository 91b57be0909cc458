"""Who takes part: lrcore, the roof, NumPy, and PyTorch if it is there; and that all of them compute the same."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

import lrcore
from lrcore import _lrcore
from lrcore.bench import textbook
from lrcore.optim.optimizer import make_state

if TYPE_CHECKING:
    from collections.abc import Callable

    Array = np.ndarray[Any, np.dtype[np.float32]]
    Call = Callable[[], object]

OURS, ROOF, NUMPY = "lrcore", "roof", "NumPy"
TORCH_FORMS = {"torch fused": "fused", "torch foreach": "foreach"}
PEERS = [NUMPY, *TORCH_FORMS]
CHECKED = 1000  # weights on which updates are compared
STEPS = 5


@dataclass(frozen=True)
class Work:
    """An optimizer at the hyperparameters that all competitors use."""

    title: str
    optimizer: str  # its name in lrcore and in PyTorch
    states: int
    arguments: dict[str, float]

    def numpy(self, weight: Array, grad: Array) -> Call:
        """Return the step written in NumPy."""
        return textbook.STEPS[self.optimizer](weight, grad, **self.arguments)

    def lrcore(self, weight: Array, grad: Array) -> Call:
        """Return lrcore's step."""
        opt, grads = getattr(lrcore, self.optimizer)([weight], **self.arguments), [grad]
        return lambda: opt.step(grads)

    def roof(self, weight: Array, grad: Array) -> Call:
        """Return a step that reads and writes as much, through the same engine and threads, and only adds."""
        stepper = _lrcore.Stepper(grouped=False, make_state=make_state)
        grads = [grad]
        stepper.add_group([weight], "")
        rule = f"roof_{self.states}"
        stepper.set_group(0, rule, [])
        return lambda: stepper.step(grads)


WORKS = [
    Work("AdamW", "AdamW", 2, {"lr": 1e-3, "weight_decay": 0.01}),
    Work("SGD momentum", "SGD", 1, {"lr": 1e-3, "momentum": 0.9}),
    Work("RMSprop", "RMSprop", 1, {"lr": 1e-3}),
]


@dataclass
class Peers:
    """Peers that can be measured, and why the others can't."""

    torch: Any = None
    versions: dict[str, str] = field(default_factory=lambda: {NUMPY: np.__version__})
    missing: dict[str, str] = field(default_factory=dict)
    unequal: set[tuple[str, str]] = field(default_factory=set)

    @classmethod
    def find(cls) -> Peers:
        """Import PyTorch if it is there, let it use as many threads as lrcore, and compare all updates."""
        peers = cls()
        try:
            peers.torch = importlib.import_module("torch")
        except (ImportError, OSError) as error:  # OSError: a library that it needs is not there
            peers.missing = dict.fromkeys(TORCH_FORMS, f"torch: {error}")
        else:
            peers.torch.set_num_threads(lrcore.get_num_threads())
            peers.versions |= dict.fromkeys(TORCH_FORMS, peers.torch.__version__)
        for work in WORKS:
            peers._compare(work)
        return peers

    def competitors(self, work: Work) -> dict[str, Callable[[Array, Array], Call]]:
        """Return what makes the step of each, of weight and gradient: lrcore, the roof, then peers."""
        made: dict[str, Callable[[Array, Array], Call]] = {OURS: work.lrcore, ROOF: work.roof, NUMPY: work.numpy}
        for name, option in TORCH_FORMS.items():
            if self.torch and self._accepts(work, option):
                made[name] = self._maker(work, option)
        return {name: make for name, make in made.items() if (work.title, name) not in self.unequal}

    def _maker(self, work: Work, option: str) -> Callable[[Array, Array], Call]:
        def make(weight: Array, grad: Array) -> Call:
            parameter = self.torch.nn.Parameter(self.torch.from_numpy(weight))
            parameter.grad = self.torch.from_numpy(grad)
            optimizer = getattr(self.torch.optim, work.optimizer)
            step: Call = optimizer([parameter], **work.arguments, **{option: True}).step
            return step

        return make

    def _accepts(self, work: Work, option: str) -> bool:
        """Return whether PyTorch has this form of the optimizer; there is no fused RMSprop, for one."""
        try:
            self._maker(work, option)(np.zeros(1, np.float32), np.zeros(1, np.float32))
        except (TypeError, RuntimeError):
            return False
        return True

    def _compare(self, work: Work) -> None:
        """Leave out, and say so, who does not compute what lrcore does."""
        moved = {}
        for name, make in self.competitors(work).items():
            weight, grad = arrays(CHECKED)
            step = make(weight, grad)
            for _ in range(STEPS):
                step()
            moved[name] = weight
        for name, weight in moved.items():
            if name != ROOF and not np.allclose(weight, moved[OURS], rtol=1e-5, atol=1e-6):
                self.unequal.add((work.title, name))
                self.missing[f"{name} ({work.title})"] = "computes another update"


def arrays(length: int) -> tuple[Array, Array]:
    """Return weights and gradients, the same ones at every call."""
    rng = np.random.default_rng(0)
    return rng.standard_normal(length, np.float32), rng.standard_normal(length, np.float32)
