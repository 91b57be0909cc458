//! Adam, and its `AMSGrad` variant.
//!
//! Kingma & Ba, *Adam: A Method for Stochastic Optimization* (2015); Reddi et al., *On the Convergence of Adam and Beyond*
//! (2018). `AdamW` is the same rule with decoupled weight decay, which is a stage of the engine.

use crate::rule::{Lerp, Optimizer, Real, Rule, hyperparameters, power};

hyperparameters! {
    /// `m ← lerp(m, g, 1−β₁)`; `v ← β₂ v + (1−β₂) g²`; `θ ← θ − (η / (1−β₁ᵗ)) m / (√v / √(1−β₂ᵗ) + ε)`
    ///
    /// With `AMSGrad` the largest `v` so far, before bias correction, stands in the denominator.
    pub struct Adam<const AMSGRAD: bool> {
        /// η
        lr,
        /// β₁
        beta1,
        /// β₂
        beta2,
        /// ε
        eps,
    }
}

/// One step of [`Adam`].
#[derive(Clone, Copy, Debug)]
pub struct Adapt<F, const AMSGRAD: bool> {
    first: Lerp<F>,
    keep: F,
    take: F,
    step_size: F,
    unbias: F,
    eps: F,
}

impl<F: Real, const AMSGRAD: bool> Adapt<F, AMSGRAD> {
    fn new(of: &Adam<AMSGRAD>, t: u64) -> Self {
        Self {
            first: Lerp::new(1.0 - of.beta1),
            keep: F::of(of.beta2),
            take: F::of(1.0 - of.beta2),
            step_size: F::of(of.lr / (1.0 - power(of.beta1, t))),
            // Multiplied, not divided by: the divider is what bounds this rule in cache.
            unbias: F::of(1.0 / (1.0 - power(of.beta2, t)).sqrt()),
            eps: F::of(of.eps),
        }
    }

    #[inline(always)]
    fn moments(self, grad: F, m: F, v: F) -> (F, F) {
        (self.first.between(m, grad), v * self.keep + (self.take * grad) * grad)
    }

    #[inline(always)]
    fn descend(self, weight: F, m: F, v: F) -> F {
        weight - (self.step_size * m) / (v.sqrt() * self.unbias + self.eps)
    }
}

impl<F: Real> Rule<F, 2> for Adapt<F, false> {
    #[inline(always)]
    fn apply(self, weight: F, grad: F, [m, v]: [F; 2]) -> (F, [F; 2]) {
        let (m, v) = self.moments(grad, m, v);
        (self.descend(weight, m, v), [m, v])
    }
}

impl Optimizer<2> for Adam<false> {
    const STATE: [&'static str; 2] = ["exp_avg", "exp_avg_sq"];
    type Rule<F: Real> = Adapt<F, false>;

    fn at<F: Real>(&self, t: u64) -> Self::Rule<F> {
        Adapt::new(self, t)
    }
}

impl<F: Real> Rule<F, 3> for Adapt<F, true> {
    #[inline(always)]
    fn apply(self, weight: F, grad: F, [m, v, largest]: [F; 3]) -> (F, [F; 3]) {
        let (m, v) = self.moments(grad, m, v);
        let largest = largest.max_or_nan(v);
        (self.descend(weight, m, largest), [m, v, largest])
    }
}

impl Optimizer<3> for Adam<true> {
    const STATE: [&'static str; 3] = ["exp_avg", "exp_avg_sq", "max_exp_avg_sq"];
    type Rule<F: Real> = Adapt<F, true>;

    fn at<F: Real>(&self, t: u64) -> Self::Rule<F> {
        Adapt::new(self, t)
    }
}
