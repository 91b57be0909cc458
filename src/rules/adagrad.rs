//! Adagrad.
//!
//! Duchi, Hazan & Singer, *Adaptive Subgradient Methods for Online Learning and Stochastic Optimization* (2011).

use crate::rule::{Optimizer, Real, Rule, hyperparameters};

hyperparameters! {
    /// `sum ← sum + g²`; `θ ← θ − η / (1 + (t−1) decay) · g / (√sum + ε)`
    pub struct Adagrad {
        /// η
        lr,
        /// The decay of η over the steps t of a parameter.
        lr_decay,
        /// ε
        eps,
        /// The initial `sum`.
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

    /// Nothing is flushed: the sum does not decay, so it would lack the flushed additions forever.
    #[inline(always)]
    fn flush(self, state: [F; 1]) -> [F; 1] {
        state
    }
}

impl Optimizer<1> for Adagrad {
    const STATE: [&'static str; 1] = ["sum"];
    type Rule<F: Real> = AdagradStep<F>;

    #[expect(clippy::cast_precision_loss, reason = "a count above 2^53 is not reached")]
    fn at<F: Real>(&self, t: u64) -> AdagradStep<F> {
        let lr = self.lr / (1.0 + (t - 1) as f64 * self.lr_decay);
        AdagradStep { lr: F::of(lr), eps: F::of(self.eps) }
    }

    fn initial(&self) -> [f64; 1] {
        [self.initial_accumulator_value]
    }
}
