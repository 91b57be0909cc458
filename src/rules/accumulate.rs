//! Gradient accumulation: not an optimizer, but the same pass over memory. It is not in the registry, so
//! `create` never returns it.

use crate::rule::{Hyperparameters, Optimizer, Real, Rule};

/// `sum ← sum + g`, with the sum in the place of the weight.
#[derive(Clone, Copy, Debug)]
pub struct Accumulate;

impl Hyperparameters for Accumulate {
    fn from_values(values: &[f64]) -> Option<Self> {
        values.is_empty().then_some(Self)
    }
}

impl<F: Real> Rule<F, 0> for Accumulate {
    const DIVIDES: bool = false;

    #[inline(always)]
    fn apply(self, sum: F, grad: F, _: [F; 0]) -> (F, [F; 0]) {
        (sum + grad, [])
    }
}

impl Optimizer<0> for Accumulate {
    const STATE: [&'static str; 0] = [];
    type Rule<F: Real> = Self;

    fn at<F: Real>(&self, _: u64) -> Self {
        *self
    }
}
