//! Stages: everything that happens to gradient, weight and average in the same pass over memory, except the rule.
//!
//! ```text
//! g = grad · grad_factor                  with the sign of `maximize` and the clip coefficient
//! w = weight · (1 − r)                    decoupled decay
//! g = clamp(g, ±clip_value) + r · w       coupled decay
//! w = rule(w, g)
//! w = clamp(w − r · weight, bounds)       cautious decay, where the rule moved the weight towards zero
//! average = lerp(average, w)
//! grad = 0
//! ```
//!
//! Stages know no rule and rules know no stage. [`Scales`] are factors of the loads, where a factor of 1 changes no bit and
//! costs nothing measurable. [`ElementStages`] turn any rule into a [`Staged`] one. The average is one more stream of the inner
//! loop. Gradients are zeroed tile by tile.

use super::factor::Factor;
use crate::rule::{Lerp, OutOfRange, Real, Rule, round_finite};

/// A form of weight decay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decay {
    /// `g ← g + r θ`: an L2 penalty, which the rule's moments include.
    Coupled,
    /// `θ ← θ (1 − r)`, before the rule.
    Decoupled,
    /// `θ ← θ′ − r θ` after the rule made `θ′` of `θ`, where the rule moved the weight towards zero or left it.
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

/// The stages of a step, in `f64`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stages {
    /// Negates the gradient.
    pub maximize: bool,
    /// The form of weight decay.
    pub decay: Decay,
    /// r, the factor of weight decay; 0 is none. It includes the learning rate, except in the coupled form.
    pub decay_rate: f64,
    /// The factor that the gradient is multiplied by.
    pub grad_factor: Factor,
    /// The largest magnitude of an element of the scaled gradient.
    pub clip_value: Option<f64>,
    /// The least and the largest weight.
    pub bounds: Option<(f64, f64)>,
    /// The coefficient of `a ← lerp(a, θ, coefficient)`, for the average `a` of the weight.
    pub average: Option<f64>,
    /// Whether the gradient is set to zero after the update.
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

    /// Rounds the stages to a dtype.
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
        // A decay rate so small that `shrink` is 1 has no effect in any dtype.
        let shrink = 1.0 - rate_of(Decay::Decoupled).unwrap_or(0.0);
        let weight = round_finite("1 - lr * weight_decay", shrink)?;
        let element = ElementStages {
            rescale,
            clip: clip_value.map_or(Ok(F::of(f64::INFINITY)), round_clip_value)?,
            penalty: penalty.map(|rate| round_finite("weight_decay", rate)).transpose()?,
            cautious: cautious.map(|rate| round_finite("lr * weight_decay", rate)).transpose()?,
            bounds: bounds.map_or(Ok((F::of(f64::NEG_INFINITY), F::of(f64::INFINITY))), round_bounds)?,
        };
        Ok(StageParams {
            scales: Scales { weight, grad },
            element: any.then_some(element),
            average: average.map(Lerp::new),
            zero_grads,
        })
    }
}

/// Rounds the clip value. Infinity clips nothing; 0 is an error.
fn round_clip_value<F: Real>(value: f64) -> Result<F, OutOfRange> {
    let rounded = F::of(value);
    if rounded > F::ZERO { Ok(rounded) } else { Err(OutOfRange { name: "clip_value", value }) }
}

/// Rounds bounds of weights. Infinite ones bound nothing; those that would make weights infinite are an error.
fn round_bounds<F: Real>((low, high): (f64, f64)) -> Result<(F, F), OutOfRange> {
    let rounded = (F::of(low), F::of(high));
    if rounded.0 > F::MAX {
        Err(OutOfRange { name: "the lower of bounds", value: low })
    } else if rounded.1 < -F::MAX {
        Err(OutOfRange { name: "the upper of bounds", value: high })
    } else {
        Ok(rounded)
    }
}

/// Factors that weight and gradient are multiplied by as they are loaded.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scales<F> {
    pub(super) weight: F,
    pub(super) grad: F,
}

/// The stages of a step, rounded to the dtype.
#[derive(Clone, Copy, Debug)]
pub(super) struct StageParams<F> {
    pub(super) scales: Scales<F>,
    /// `None` if none is used, so that the rule runs alone.
    pub(super) element: Option<ElementStages<F>>,
    pub(super) average: Option<Lerp<F>>,
    pub(super) zero_grads: bool,
}

/// The stages between load and rule, and between rule and store. Unused ones are `None` or numbers that change nothing, so there is
/// one compiled form, not one for each combination.
#[derive(Clone, Copy, Debug)]
pub(super) struct ElementStages<F> {
    /// The second factor of the gradient, where one number of the dtype is not enough.
    rescale: Option<F>,
    /// The largest magnitude of a gradient, or infinity.
    clip: F,
    penalty: Option<F>,
    cautious: Option<F>,
    /// The least and the largest weight, or infinities.
    bounds: (F, F),
}

/// A rule with stages: a rule again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Staged<F, R> {
    pub(super) rule: R,
    pub(super) params: ElementStages<F>,
}

impl<F: Real, R: Rule<F, N>, const N: usize> Rule<F, N> for Staged<F, R> {
    const DIVIDES: bool = R::DIVIDES;

    #[inline(always)]
    fn apply(self, weight: F, grad: F, state: [F; N]) -> (F, [F; N]) {
        let Self { rule, params } = self;
        let mut grad = grad;
        if let Some(factor) = params.rescale {
            grad = grad * factor;
        }
        grad = grad.clamp_or_nan(-params.clip, params.clip);
        if let Some(penalty) = params.penalty {
            grad = grad + penalty * weight;
        }
        let (mut after, state) = rule.apply(weight, grad, state);
        if let Some(rate) = params.cautious {
            let towards_zero = (weight - after) * weight >= F::ZERO;
            after = if towards_zero { after - rate * weight } else { after };
        }
        (after.clamp_or_nan(params.bounds.0, params.bounds.1), state)
    }

    #[inline(always)]
    fn flush(self, state: [F; N]) -> [F; N] {
        self.rule.flush(state)
    }
}

/// How an average of the weight is updated: a [`Lerp`], or [`NoAverage`].
pub(super) trait AverageUpdate<F>: Copy {
    const ENABLED: bool;

    fn update(self, average: F, weight: F) -> F;
}

#[derive(Clone, Copy, Debug)]
pub(super) struct NoAverage;

impl<F: Real> AverageUpdate<F> for NoAverage {
    const ENABLED: bool = false;

    #[inline(always)]
    fn update(self, average: F, _: F) -> F {
        average
    }
}

impl<F: Real> AverageUpdate<F> for Lerp<F> {
    const ENABLED: bool = true;

    #[inline(always)]
    fn update(self, average: F, weight: F) -> F {
        self.between(average, weight)
    }
}
