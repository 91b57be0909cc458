//! Adagrad.
//!
//! Duchi, Hazan & Singer, *Adaptive Subgradient Methods for Online Learning and Stochastic Optimization* (2011).

use crate::rule::{Optimizer, Real, Rule, hyperparameters};

hyperparameters! {
    /// `sum ← sum + g²`; `θ ← θ − η / (1 + (t−1) decay) · g / (√sum + ε)`
    pub struct Adagrad {
        /// η
        lr,
        /// The decay of η over the steps of a parameter.
        lr_decay,
        /// ε
        eps,
        /// What `sum` starts from.
        initial_accumulator_value,
    }
}

/// One step of [`Adagrad`].
#[derive(Clone, Copy, Debug)]
pub struct AdagradStep<F> {
    lr: F,
    eps: F,
}

impl<F: Real> Rule<F, 1> for AdagradStep<F> {
    #[inline(always)]
    fn apply(self, weight: F, grad: F, [sum]: [F; 1]) -> (F, [F; 1]) {
        let sum = sum + grad * grad;
        (weight - (self.lr * grad) / (sum.sqrt() + self.eps), [sum])
    }

    /// The sum does not decay, and what is flushed would be missing from it for good.
    #[inline(always)]
    fn flush(self, state: [F; 1]) -> [F; 1] {
        state
    }
}

impl Optimizer<1> for Adagrad {
    const STATE: [&'static str; 1] = ["sum"];
    type Rule<F: Real> = AdagradStep<F>;

    fn at<F: Real>(&self, t: u64) -> AdagradStep<F> {
        AdagradStep { lr: F::of(self.step_size(t)), eps: F::of(self.eps) }
    }

    #[expect(clippy::cast_precision_loss, reason = "a count above 2^53 is not reached")]
    fn step_size(&self, t: u64) -> f64 {
        self.lr / (1.0 + (t - 1) as f64 * self.lr_decay)
    }

    fn initial(&self) -> [f64; 1] {
        [self.initial_accumulator_value]
    }
}
