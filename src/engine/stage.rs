//! Stages: what is done to gradient, weight and average around the rule, in the same pass over memory.
//!
//! Stages know no rule and rules know no stage. Scaling by a factor is part of every load, where a factor of 1 changes no bit and
//! costs nothing that can be measured. The stages around the rule make a [`Staged`] rule of any rule; the average is one more
//! stream of the loop; zeroing is done a tile at a time.
//!
//! Their order: the gradient is scaled (sign, loss scale, clip coefficient), clipped by value, and penalised; the weight shrinks;
//! the rule moves it; cautious decay, bounds, and the average follow; the gradient is zeroed.

use super::factor::Factor;
use crate::rule::{Lerp, OutOfRange, Real, Rule};

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
    pub fn from_name(name: &str) -> Option<Self> {
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
    pub grad_factor: Factor,
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
        grad_factor: Factor::ONE,
        clip_value: None,
        bounds: None,
        average: None,
        zero_grads: false,
    };

    /// The stages in the numbers of a dtype.
    ///
    /// # Errors
    /// If one of them is too large for it, or so small that it would do something else.
    pub(super) fn fold<F: Real>(self) -> Result<StageParams<F>, OutOfRange> {
        let Self { maximize, decay, decay_rate, grad_factor, clip_value, bounds, average, zero_grads } = self;
        let rate_of = |form| (decay == form && decay_rate != 0.0).then_some(decay_rate);
        let (penalty, cautious) = (rate_of(Decay::Coupled), rate_of(Decay::Cautious));
        let (grad, rescale) = if maximize { grad_factor.negated() } else { grad_factor }.split()?;
        let any =
            clip_value.is_some() || penalty.is_some() || cautious.is_some() || bounds.is_some() || rescale.is_some();
        // A rate that vanishes beside a weight shrinks nothing in any dtype.
        let shrink = 1.0 - rate_of(Decay::Decoupled).unwrap_or(0.0);
        let weight = OutOfRange::unless_finite("1 - lr * weight_decay", shrink)?;
        let around = ElementStages {
            rescale,
            clip: clip_value.map_or(Ok(F::of(f64::INFINITY)), fit_for_clipping)?,
            penalty: penalty.map(|rate| OutOfRange::unless_finite("weight_decay", rate)).transpose()?,
            cautious: cautious.map(|rate| OutOfRange::unless_finite("lr * weight_decay", rate)).transpose()?,
            bounds: bounds.map_or(Ok((F::of(f64::NEG_INFINITY), F::of(f64::INFINITY))), fit_bounds)?,
        };
        Ok(StageParams {
            scales: Scales { weight, grad },
            around: any.then_some(around),
            average: average.map(Lerp::new),
            zero_grads,
        })
    }
}

/// What clips the elements of a gradient: what is infinite clips nothing, but nothing may be clipped to zero.
fn fit_for_clipping<F: Real>(value: f64) -> Result<F, OutOfRange> {
    let rounded = F::of(value);
    if rounded > F::ZERO { Ok(rounded) } else { Err(OutOfRange { name: "clip_value", value }) }
}

/// Bounds of weights: those that are infinite bound nothing, but no weight may be made infinite by one.
fn fit_bounds<F: Real>((low, high): (f64, f64)) -> Result<(F, F), OutOfRange> {
    let rounded = (F::of(low), F::of(high));
    if rounded.0 > F::MAX {
        Err(OutOfRange { name: "the lower of bounds", value: low })
    } else if rounded.1 < -F::MAX {
        Err(OutOfRange { name: "the upper of bounds", value: high })
    } else {
        Ok(rounded)
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
pub(super) struct StageParams<F> {
    pub(super) scales: Scales<F>,
    /// The stages around the rule, if there are any.
    pub(super) around: Option<ElementStages<F>>,
    pub(super) average: Option<Lerp<F>>,
    pub(super) zero_grads: bool,
}

/// The stages between a load and the rule, and between the rule and a store. Those that are not wanted are there with numbers
/// that change nothing, so that there is one form of them and not one for each combination.
#[derive(Clone, Copy, Debug)]
pub(super) struct ElementStages<F> {
    /// The second factor of a gradient whose factor is not one number of the dtype.
    rescale: Option<F>,
    /// The largest magnitude of a gradient; infinity clips nothing.
    clip: F,
    penalty: Option<F>,
    cautious: Option<F>,
    /// The least and the largest weight; infinities bound nothing.
    bounds: (F, F),
}

/// A rule with the stages around it: a rule again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Staged<F, R> {
    pub(super) rule: R,
    pub(super) around: ElementStages<F>,
}

impl<F: Real, R: Rule<F, N>, const N: usize> Rule<F, N> for Staged<F, R> {
    const DIVIDES: bool = R::DIVIDES;

    #[inline(always)]
    fn apply(self, weight: F, grad: F, state: [F; N]) -> (F, [F; N]) {
        let Self { rule, around } = self;
        let mut grad = grad;
        if let Some(factor) = around.rescale {
            grad = grad * factor;
        }
        grad = grad.clamp_or_nan(-around.clip, around.clip);
        if let Some(penalty) = around.penalty {
            grad = grad + penalty * weight;
        }
        let (mut moved, state) = rule.apply(weight, grad, state);
        if let Some(rate) = around.cautious {
            let towards_zero = (weight - moved) * weight >= F::ZERO;
            moved = if towards_zero { moved - rate * weight } else { moved };
        }
        (moved.clamp_or_nan(around.bounds.0, around.bounds.1), state)
    }

    #[inline(always)]
    fn flush(self, state: [F; N]) -> [F; N] {
        self.rule.flush(state)
    }
}

/// What becomes of an average when its weight has moved.
pub(super) trait AverageUpdate<F>: Copy {
    /// Whether there is an average.
    const ENABLED: bool;

    /// The new average.
    fn blend(self, average: F, weight: F) -> F;
}

/// No average.
#[derive(Clone, Copy, Debug)]
pub(super) struct NoAverage;

impl<F: Real> AverageUpdate<F> for NoAverage {
    const ENABLED: bool = false;

    #[inline(always)]
    fn blend(self, average: F, _: F) -> F {
        average
    }
}

impl<F: Real> AverageUpdate<F> for Lerp<F> {
    const ENABLED: bool = true;

    #[inline(always)]
    fn blend(self, average: F, weight: F) -> F {
        self.between(average, weight)
    }
}
