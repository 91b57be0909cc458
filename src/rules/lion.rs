//! Lion.
//!
//! Chen et al., *Symbolic Discovery of Optimization Algorithms* (2023).

use crate::rule::{Optimizer, Real, Rule, hyperparameters};

hyperparameters! {
    /// `u ← β₁ m + (1−β₁) g`; `θ ← θ − η sign(u)`; `m ← β₂ m + (1−β₂) g`
    pub struct Lion {
        /// η
        lr,
        /// β₁
        beta1,
        /// β₂
        beta2,
    }
}

/// One step of [`Lion`].
#[derive(Clone, Copy, Debug)]
pub struct LionStep<F> {
    lr: F,
    keep1: F,
    take1: F,
    keep2: F,
    take2: F,
}

impl<F: Real> Rule<F, 1> for LionStep<F> {
    const DIVIDES: bool = false;

    #[inline(always)]
    fn apply(self, weight: F, grad: F, [m]: [F; 1]) -> (F, [F; 1]) {
        let u = self.keep1 * m + self.take1 * grad;
        let m = self.keep2 * m + self.take2 * grad;
        (weight - self.lr * sign(u), [m])
    }
}

impl Optimizer<1> for Lion {
    const STATE: [&'static str; 1] = ["exp_avg"];
    type Rule<F: Real> = LionStep<F>;

    fn at<F: Real>(&self, _: u64) -> LionStep<F> {
        LionStep {
            lr: F::of(self.lr),
            keep1: F::of(self.beta1),
            take1: F::of(1.0 - self.beta1),
            keep2: F::of(self.beta2),
            take2: F::of(1.0 - self.beta2),
        }
    }
}

/// 1, −1, or 0; NaN stays.
#[inline(always)]
fn sign<F: Real>(u: F) -> F {
    if u > F::ZERO {
        F::ONE
    } else if u < F::ZERO {
        -F::ONE
    } else {
        u.abs()
    }
}
