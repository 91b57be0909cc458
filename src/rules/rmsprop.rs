//! `RMSprop`, centered or not, with momentum or without.
//!
//! Tieleman & Hinton, *Lecture 6.5* (2012); centered: Graves, *Generating Sequences With Recurrent Neural Networks* (2013).

use crate::rule::{Lerp, Optimizer, Real, Rule, flush_threshold, hyperparameters};

hyperparameters! {
    /// `s ← α s + (1−α) g²`; `a = √s + ε`; `θ ← θ − η g / a`
    ///
    /// Centered, `ḡ ← lerp(ḡ, g, 1−α)` and `a = √(s − ḡ²) + ε`. With momentum, `b ← μ b + g / a` and `θ ← θ − η b`.
    pub struct RmsProp<const CENTERED: bool, const MOMENTUM: bool> {
        /// η
        lr,
        /// α
        alpha,
        /// ε
        eps,
        /// μ
        momentum,
    }
}

/// One step of [`RmsProp`].
#[derive(Clone, Copy, Debug)]
pub struct RmsPropStep<F, const CENTERED: bool, const MOMENTUM: bool> {
    lr: F,
    momentum: F,
    keep: F,
    take: F,
    mean: Lerp<F>,
    eps: F,
    flush_threshold: F,
}

impl<F: Real, const CENTERED: bool, const MOMENTUM: bool> RmsPropStep<F, CENTERED, MOMENTUM> {
    fn new(of: &RmsProp<CENTERED, MOMENTUM>) -> Self {
        Self {
            lr: F::of(of.lr),
            momentum: F::of(of.momentum),
            keep: F::of(of.alpha),
            take: F::of(1.0 - of.alpha),
            mean: Lerp::new(1.0 - of.alpha),
            eps: F::of(of.eps),
            flush_threshold: flush_threshold(of.eps, 1.0 - of.alpha),
        }
    }

    /// Flushes the running square, which is the first state, below its threshold, and the others if subnormal.
    #[inline(always)]
    fn flush_state<const N: usize>(self, state: [F; N]) -> [F; N] {
        let mut threshold = self.flush_threshold;
        state.map(|number| {
            let flushed = number.flush_below(threshold);
            threshold = F::MIN_POSITIVE;
            flushed
        })
    }

    #[inline(always)]
    fn square(self, grad: F, s: F) -> F {
        self.keep * s + (self.take * grad) * grad
    }

    #[inline(always)]
    fn centered(self, mean: F, s: F) -> F {
        // If both overflow the result is infinite, as if `s` alone does, and not NaN.
        let square = mean * mean;
        let square = if square > F::MAX { F::MAX } else { square };
        let variance = s - square;
        // Rounding can make the variance of a constant gradient negative. NaN stays.
        let variance = if variance < F::ZERO { F::ZERO } else { variance };
        variance.sqrt() + self.eps
    }

    #[inline(always)]
    fn update(self, weight: F, grad: F, a: F) -> F {
        weight - (self.lr * grad) / a
    }

    #[inline(always)]
    fn update_with_momentum(self, weight: F, grad: F, a: F, b: F) -> (F, F) {
        let b = self.momentum * b + grad / a;
        (weight - self.lr * b, b)
    }
}

impl<F: Real> Rule<F, 1> for RmsPropStep<F, false, false> {
    #[inline(always)]
    fn apply(self, weight: F, grad: F, [s]: [F; 1]) -> (F, [F; 1]) {
        let s = self.square(grad, s);
        (self.update(weight, grad, s.sqrt() + self.eps), [s])
    }

    #[inline(always)]
    fn flush(self, state: [F; 1]) -> [F; 1] {
        self.flush_state(state)
    }
}

impl Optimizer<1> for RmsProp<false, false> {
    const STATE: [&'static str; 1] = ["square_avg"];
    type Rule<F: Real> = RmsPropStep<F, false, false>;

    fn at<F: Real>(&self, _: u64) -> Self::Rule<F> {
        RmsPropStep::new(self)
    }
}

impl<F: Real> Rule<F, 2> for RmsPropStep<F, false, true> {
    #[inline(always)]
    fn apply(self, weight: F, grad: F, [s, b]: [F; 2]) -> (F, [F; 2]) {
        let s = self.square(grad, s);
        let (weight, b) = self.update_with_momentum(weight, grad, s.sqrt() + self.eps, b);
        (weight, [s, b])
    }

    #[inline(always)]
    fn flush(self, state: [F; 2]) -> [F; 2] {
        self.flush_state(state)
    }
}

impl Optimizer<2> for RmsProp<false, true> {
    const STATE: [&'static str; 2] = ["square_avg", "momentum_buffer"];
    type Rule<F: Real> = RmsPropStep<F, false, true>;

    fn at<F: Real>(&self, _: u64) -> Self::Rule<F> {
        RmsPropStep::new(self)
    }
}

impl<F: Real> Rule<F, 2> for RmsPropStep<F, true, false> {
    #[inline(always)]
    fn apply(self, weight: F, grad: F, [s, mean]: [F; 2]) -> (F, [F; 2]) {
        let (s, mean) = (self.square(grad, s), self.mean.between(mean, grad));
        (self.update(weight, grad, self.centered(mean, s)), [s, mean])
    }

    #[inline(always)]
    fn flush(self, state: [F; 2]) -> [F; 2] {
        self.flush_state(state)
    }
}

impl Optimizer<2> for RmsProp<true, false> {
    const STATE: [&'static str; 2] = ["square_avg", "grad_avg"];
    type Rule<F: Real> = RmsPropStep<F, true, false>;

    fn at<F: Real>(&self, _: u64) -> Self::Rule<F> {
        RmsPropStep::new(self)
    }
}

impl<F: Real> Rule<F, 3> for RmsPropStep<F, true, true> {
    #[inline(always)]
    fn apply(self, weight: F, grad: F, [s, mean, b]: [F; 3]) -> (F, [F; 3]) {
        let (s, mean) = (self.square(grad, s), self.mean.between(mean, grad));
        let (weight, b) = self.update_with_momentum(weight, grad, self.centered(mean, s), b);
        (weight, [s, mean, b])
    }

    #[inline(always)]
    fn flush(self, state: [F; 3]) -> [F; 3] {
        self.flush_state(state)
    }
}

impl Optimizer<3> for RmsProp<true, true> {
    const STATE: [&'static str; 3] = ["square_avg", "grad_avg", "momentum_buffer"];
    type Rule<F: Real> = RmsPropStep<F, true, true>;

    fn at<F: Real>(&self, _: u64) -> Self::Rule<F> {
        RmsPropStep::new(self)
    }
}
