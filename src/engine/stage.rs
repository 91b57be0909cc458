//! Stages: what is done to the gradient or the weight on their way to the rule, in the same pass over memory.
//!
//! Stages know no rule and rules know no stage, so they add up and never multiply. Scaling by a factor is part of every load,
//! where a factor of 1 changes no bit and costs nothing that can be measured. Any other stage is a small loop over a tile
//! that lies in L1, entered only where it is asked for.

use super::format::Cell;
use crate::rule::Real;

/// How weight decay acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decay {
    /// `g ← g + λ θ`: an L2 penalty, seen by the rule's moments.
    Coupled,
    /// `θ ← θ (1 − η λ)`, before the rule.
    Decoupled,
}

impl Decay {
    /// The form of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "coupled" => Some(Self::Coupled),
            "decoupled" => Some(Self::Decoupled),
            _ => None,
        }
    }
}

/// The stages of a step, as the user gives them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stages {
    /// Ascend: the gradient is negated first.
    pub maximize: bool,
    /// How weight decay acts.
    pub decay: Decay,
    /// λ; 0 is no decay.
    pub weight_decay: f64,
    /// η, for decoupled decay.
    pub lr: f64,
}

impl Stages {
    /// No stages.
    pub const NONE: Self = Self { maximize: false, decay: Decay::Coupled, weight_decay: 0.0, lr: 0.0 };

    pub(super) fn fold<F: Real>(self) -> Folded<F> {
        let Self { maximize, decay, weight_decay, lr } = self;
        let coupled = decay == Decay::Coupled && weight_decay != 0.0;
        let shrink = if decay == Decay::Decoupled { lr * weight_decay } else { 0.0 };
        Folded {
            scales: Scales { weight: F::of(1.0 - shrink), grad: if maximize { -F::ONE } else { F::ONE } },
            penalty: coupled.then(|| F::of(weight_decay)),
        }
    }
}

/// The factors by which weight and gradient are multiplied as they are loaded.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scales<F> {
    pub(super) weight: F,
    pub(super) grad: F,
}

/// The stages of one step, in the numbers of the rule.
#[derive(Clone, Copy, Debug)]
pub(super) struct Folded<F> {
    pub(super) scales: Scales<F>,
    penalty: Option<F>,
}

impl<F: Real> Folded<F> {
    /// Whether the gradient goes through a tile of scratch: the user's is never written.
    pub(super) fn needs_tiles(&self) -> bool {
        self.penalty.is_some()
    }

    /// Takes a tile of the gradient, in scratch, through the stages that need one, and returns the factors that are left
    /// for the loads.
    #[inline(always)]
    pub(super) fn prepare<C: Cell<Real = F>>(&self, grad: &mut [C], weight: &[C]) -> Scales<F> {
        let Some(penalty) = self.penalty else { return self.scales };
        for (g, w) in grad.iter_mut().zip(weight) {
            *g = C::store(g.load() * self.scales.grad + penalty * w.load());
        }
        Scales { grad: F::ONE, ..self.scales }
    }
}
