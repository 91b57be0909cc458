//! Stochastic gradient descent, plain, with momentum, and with Nesterov's momentum.
//!
//! Sutskever et al., *On the importance of initialization and momentum in deep learning* (2013), in `PyTorch`'s form: the
//! learning rate is not in the buffer, so a change of it scales the whole step at once.

use crate::rule::{Optimizer, Real, Rule, hyperparameters};

hyperparameters! {
    /// `θ ← θ − η g`
    pub struct Sgd {
        /// η
        lr,
    }
}

/// One step of [`Sgd`].
#[derive(Clone, Copy, Debug)]
pub struct SgdStep<F> {
    lr: F,
}

impl<F: Real> Rule<F, 0> for SgdStep<F> {
    const DIVIDES: bool = false;

    #[inline(always)]
    fn apply(self, weight: F, grad: F, _: [F; 0]) -> (F, [F; 0]) {
        (weight - self.lr * grad, [])
    }
}

impl Optimizer<0> for Sgd {
    const STATE: [&'static str; 0] = [];
    type Rule<F: Real> = SgdStep<F>;

    fn at<F: Real>(&self, _: u64) -> SgdStep<F> {
        SgdStep { lr: F::of(self.lr) }
    }
}

hyperparameters! {
    /// `b ← μ b + (1 − τ) g`, at the first step `b ← g`; `θ ← θ − η b`, or with Nesterov `θ ← θ − η (g + μ b)`
    pub struct Momentum<const NESTEROV: bool> {
        /// η
        lr,
        /// μ
        momentum,
        /// τ
        dampening,
    }
}

/// One step of [`Momentum`].
#[derive(Clone, Copy, Debug)]
pub struct MomentumStep<F, const NESTEROV: bool> {
    lr: F,
    momentum: F,
    take: F,
}

impl<F: Real, const NESTEROV: bool> Rule<F, 1> for MomentumStep<F, NESTEROV> {
    const DIVIDES: bool = false;

    #[inline(always)]
    fn apply(self, weight: F, grad: F, [b]: [F; 1]) -> (F, [F; 1]) {
        let b = self.momentum * b + self.take * grad;
        let direction = if NESTEROV { grad + self.momentum * b } else { b };
        (weight - self.lr * direction, [b])
    }
}

impl<const NESTEROV: bool> Optimizer<1> for Momentum<NESTEROV> {
    const STATE: [&'static str; 1] = ["momentum_buffer"];
    type Rule<F: Real> = MomentumStep<F, NESTEROV>;

    fn at<F: Real>(&self, t: u64) -> Self::Rule<F> {
        let take = if t == 1 { 1.0 } else { 1.0 - self.dampening };
        MomentumStep { lr: F::of(self.lr), momentum: F::of(self.momentum), take: F::of(take) }
    }

    /// Negative zero: μ·(−0) + g is g to the bit for both signs of g, so the first step needs no formula of its own.
    fn initial(&self) -> [f64; 1] {
        [-0.0]
    }
}
