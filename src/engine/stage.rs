//! Stages: what is done to gradient, weight and average around the rule, in the same pass over memory.
//!
//! Stages know no rule and rules know no stage, so they add up and never multiply. Scaling by a factor is part of every load,
//! where a factor of 1 changes no bit and costs nothing that can be measured. Any other stage is a small loop over a tile
//! that lies in L1, entered only where it is asked for.
//!
//! Their order: the gradient is scaled (sign, loss scale, clip coefficient), clipped by value, and penalised; the weight shrinks;
//! the rule moves it; cautious decay, bounds, and the average follow; the gradient is zeroed.

use super::format::Cell;
use crate::rule::{Lerp, Real};

/// How weight decay acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decay {
    /// `g ← g + r θ`: an L2 penalty, seen by the rule's moments.
    Coupled,
    /// `θ ← θ (1 − r)`, before the rule.
    Decoupled,
    /// `θ ← θ′ − r θ` after the rule made `θ′` of `θ`, where the rule moved the weight towards zero, or did not move it.
    Cautious,
}

impl Decay {
    /// The forms by their names.
    pub const NAMES: [(&'static str, Self); 3] =
        [("coupled", Self::Coupled), ("decoupled", Self::Decoupled), ("cautious", Self::Cautious)];

    /// The form of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::NAMES.into_iter().find(|(known, _)| *known == name).map(|(_, decay)| decay)
    }
}

/// The stages of a step, as the user gives them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stages {
    /// Ascend: the gradient is negated first.
    pub maximize: bool,
    /// How weight decay acts.
    pub decay: Decay,
    /// r, the factor of weight decay; 0 is none. For all forms but the coupled one the learning rate is in it.
    pub decay_rate: f64,
    /// What the gradient is multiplied by.
    pub grad_scale: f64,
    /// The largest magnitude of an element of the scaled gradient.
    pub clip_value: Option<f64>,
    /// The least and the largest weight.
    pub bounds: Option<(f64, f64)>,
    /// `a ← lerp(a, θ, weight)`, for the average `a` of the weight.
    pub average: Option<f64>,
    /// Whether the gradient is set to zero when it has been used.
    pub zero_grads: bool,
}

impl Stages {
    /// No stages.
    pub const NONE: Self = Self {
        maximize: false,
        decay: Decay::Coupled,
        decay_rate: 0.0,
        grad_scale: 1.0,
        clip_value: None,
        bounds: None,
        average: None,
        zero_grads: false,
    };

    pub(super) fn fold<F: Real>(self) -> Folded<F> {
        let Self { maximize, decay, decay_rate, grad_scale, clip_value, bounds, average, zero_grads } = self;
        let rate_of = |form| (decay == form && decay_rate != 0.0).then_some(decay_rate);
        Folded {
            scales: Scales {
                weight: F::of(1.0 - rate_of(Decay::Decoupled).unwrap_or(0.0)),
                grad: F::of(if maximize { -grad_scale } else { grad_scale }),
            },
            clip: clip_value.map(F::of),
            penalty: rate_of(Decay::Coupled).map(F::of),
            cautious: rate_of(Decay::Cautious).map(F::of),
            bounds: bounds.map(|(low, high)| (F::of(low), F::of(high))),
            average: average.map(Lerp::new),
            zero_grads,
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
    clip: Option<F>,
    penalty: Option<F>,
    cautious: Option<F>,
    bounds: Option<(F, F)>,
    pub(super) average: Option<Lerp<F>>,
    pub(super) zero_grads: bool,
}

impl<F: Real> Folded<F> {
    /// Whether the gradient goes through a tile of scratch: the user's is never written but to zero it.
    pub(super) fn prepares(&self) -> bool {
        self.clip.is_some() || self.penalty.is_some()
    }

    /// Whether the weight before the rule is needed after it.
    pub(super) fn looks_back(&self) -> bool {
        self.cautious.is_some()
    }

    /// Whether there is anything to be done a tile at a time.
    pub(super) fn needs_tiles(&self) -> bool {
        self.prepares() || self.looks_back() || self.bounds.is_some() || self.average.is_some() || self.zero_grads
    }

    /// Takes a tile of the gradient, in scratch, through the stages before the rule, and returns the factors that are left
    /// for the loads.
    #[inline(always)]
    pub(super) fn prepare<C: Cell<Real = F>>(&self, grad: &mut [C], weight: &[C]) -> Scales<F> {
        let scale = self.scales.grad;
        match (self.clip, self.penalty) {
            (None, None) => return self.scales,
            (Some(most), None) => {
                for g in &mut *grad {
                    *g = C::store((g.load() * scale).clamp_or_nan(-most, most));
                }
            }
            (None, Some(penalty)) => {
                for (g, w) in grad.iter_mut().zip(weight) {
                    *g = C::store(g.load() * scale + penalty * w.load());
                }
            }
            (Some(most), Some(penalty)) => {
                for (g, w) in grad.iter_mut().zip(weight) {
                    *g = C::store((g.load() * scale).clamp_or_nan(-most, most) + penalty * w.load());
                }
            }
        }
        Scales { grad: F::ONE, ..self.scales }
    }

    /// Takes a tile of the weight, moved by the rule, through the stages after it. `before` is what it was, where that is
    /// needed.
    #[inline(always)]
    pub(super) fn finish<C: Cell<Real = F>>(&self, weight: &mut [C], before: &[C]) {
        if let Some(rate) = self.cautious {
            for (w, old) in weight.iter_mut().zip(before) {
                let (moved, old) = (w.load(), old.load());
                let towards_zero = (old - moved) * old >= F::ZERO;
                *w = C::store(if towards_zero { moved - rate * old } else { moved });
            }
        }
        if let Some((low, high)) = self.bounds {
            for w in &mut *weight {
                *w = C::store(w.load().clamp_or_nan(low, high));
            }
        }
    }

    /// Moves a tile of the average towards the weight.
    #[inline(always)]
    pub(super) fn blend<C: Cell<Real = F>>(lerp: Lerp<F>, average: &mut [C], weight: &[C]) {
        for (a, w) in average.iter_mut().zip(weight) {
            *a = C::store(lerp.between(a.load(), w.load()));
        }
    }
}
