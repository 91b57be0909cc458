//! Adam, and its `AMSGrad` variant.
//!
//! Kingma & Ba, *Adam: A Method for Stochastic Optimization* (2015); Reddi et al., *On the Convergence of Adam and Beyond*
//! (2018). `AdamW` is the same rule with decoupled weight decay, which is a stage of the engine.

use crate::rule::{Lerp, Optimizer, Real, Rule, flush_threshold, hyperparameters, one_minus_power};

hyperparameters! {
    /// `m ← lerp(m, g, 1−β₁)`; `v ← β₂ v + (1−β₂) g²`; `θ ← θ − (η / (1−β₁ᵗ)) m / (√v / √(1−β₂ᵗ) + ε)`
    ///
    /// `AMSGrad` has the largest `v` so far, before bias correction, in the denominator.
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

impl<const AMSGRAD: bool> Adam<AMSGRAD> {
    fn step_size_at(&self, t: u64) -> f64 {
        self.lr / one_minus_power(self.beta1, t)
    }

    /// The step size, or the learning rate if the step size, at most 2⁵³ times larger, certainly fits: that takes no power.
    fn step_size_or_lr(&self, t: u64) -> f64 {
        if (1e-30..=1e20).contains(&self.lr) { self.lr } else { self.step_size_at(t) }
    }
}

/// The magnitude below which the first moment is stored as zero: see [`flush_threshold`]. Where `v` is zero, ε alone divides the
/// moment; with ε = 0 the result is not a number there either way.
fn flush_threshold_of_first<F: Real>(eps: f64, take: f64) -> F {
    let least = F::MIN_POSITIVE.wide() / take * 4.0 / F::EPSILON.wide();
    if eps == 0.0 || eps >= least { F::MIN_POSITIVE } else { F::ZERO }
}

/// One step of [`Adam`].
#[derive(Clone, Copy, Debug)]
pub struct AdamStep<F, const AMSGRAD: bool> {
    first: Lerp<F>,
    keep: F,
    take: F,
    step_size: F,
    unbias: F,
    eps: F,
    /// For the first and the second moment.
    flush_thresholds: (F, F),
}

impl<F: Real, const AMSGRAD: bool> AdamStep<F, AMSGRAD> {
    fn new(of: &Adam<AMSGRAD>, t: u64) -> Self {
        Self {
            first: Lerp::new(1.0 - of.beta1),
            keep: F::of(of.beta2),
            take: F::of(1.0 - of.beta2),
            step_size: F::of(of.step_size_at(t)),
            // A factor, not a divisor: divisions limit this rule in cache.
            unbias: F::of(1.0 / one_minus_power(of.beta2, t).sqrt()),
            eps: F::of(of.eps),
            flush_thresholds: (
                flush_threshold_of_first(of.eps, 1.0 - of.beta1),
                flush_threshold(of.eps, 1.0 - of.beta2),
            ),
        }
    }

    #[inline(always)]
    fn moments(self, grad: F, m: F, v: F) -> (F, F) {
        (self.first.between(m, grad), v * self.keep + (self.take * grad) * grad)
    }

    #[inline(always)]
    fn update(self, weight: F, m: F, v: F) -> F {
        weight - (self.step_size * m) / (v.sqrt() * self.unbias + self.eps)
    }
}

impl<F: Real> Rule<F, 2> for AdamStep<F, false> {
    #[inline(always)]
    fn apply(self, weight: F, grad: F, [m, v]: [F; 2]) -> (F, [F; 2]) {
        let (m, v) = self.moments(grad, m, v);
        (self.update(weight, m, v), [m, v])
    }

    #[inline(always)]
    fn flush(self, state: [F; 2]) -> [F; 2] {
        let [m, v] = state;
        [m.flush_below(self.flush_thresholds.0), v.flush_below(self.flush_thresholds.1)]
    }
}

impl Optimizer<2> for Adam<false> {
    const STATE: [&'static str; 2] = ["exp_avg", "exp_avg_sq"];
    type Rule<F: Real> = AdamStep<F, false>;

    fn at<F: Real>(&self, t: u64) -> Self::Rule<F> {
        AdamStep::new(self, t)
    }

    fn step_size(&self, t: u64) -> f64 {
        self.step_size_or_lr(t)
    }
}

impl<F: Real> Rule<F, 3> for AdamStep<F, true> {
    #[inline(always)]
    fn apply(self, weight: F, grad: F, [m, v, largest]: [F; 3]) -> (F, [F; 3]) {
        let (m, v) = self.moments(grad, m, v);
        let largest = largest.max_or_nan(v);
        (self.update(weight, m, largest), [m, v, largest])
    }

    #[inline(always)]
    fn flush(self, state: [F; 3]) -> [F; 3] {
        let [m, v, largest] = state;
        [
            m.flush_below(self.flush_thresholds.0),
            v.flush_below(self.flush_thresholds.1),
            largest.flush_below(self.flush_thresholds.1),
        ]
    }
}

impl Optimizer<3> for Adam<true> {
    const STATE: [&'static str; 3] = ["exp_avg", "exp_avg_sq", "max_exp_avg_sq"];
    type Rule<F: Real> = AdamStep<F, true>;

    fn at<F: Real>(&self, t: u64) -> Self::Rule<F> {
        AdamStep::new(self, t)
    }

    fn step_size(&self, t: u64) -> f64 {
        self.step_size_or_lr(t)
    }
}
