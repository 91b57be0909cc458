//! Statistics of a step, accumulated within the [inner loop](super::block).

use super::format::Element;
use super::reduce::{BLOCK, reduce};
use crate::rule::Real;

/// What a step did to one tensor.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Stats {
    /// The Euclidean norm of the weight before the step.
    pub weight_norm: f64,
    /// The Euclidean norm of the unscaled gradient.
    pub grad_norm: f64,
    /// The Euclidean norm of the update, the difference of the weights after and before the step.
    pub update_norm: f64,
    /// The largest magnitude of an element of the update.
    pub update_max: f64,
    /// The number of elements of the gradient that are 0.
    pub zeros: f64,
    /// The number of elements of the gradient that are infinite or NaN.
    pub nonfinite: f64,
}

pub(super) const STATS: usize = 6;

/// Accumulates statistics in the inner loop. Element 0 of every block belongs to lane 0.
pub(super) trait StatsAccumulator<E: Element>: Copy {
    const ENABLED: bool;

    /// Adds a block: the weight before the step, the gradient, and the weight after it.
    fn observe<const L: usize>(&mut self, before: &[E::Real; L], grad: &[E::Real; L], after: &[E::Real; L]);

    /// Ends a range of a gradient, of which every block was observed, the last one padded with zeros.
    fn finish(&mut self, grad: &[E]);
}

#[derive(Clone, Copy, Debug)]
pub(super) struct NoStats;

impl<E: Element> StatsAccumulator<E> for NoStats {
    const ENABLED: bool = false;

    #[inline(always)]
    fn observe<const L: usize>(&mut self, _: &[E::Real; L], _: &[E::Real; L], _: &[E::Real; L]) {}

    #[inline(always)]
    fn finish(&mut self, _: &[E]) {}
}

/// The sums and counts of one reduction block.
#[derive(Clone, Copy, Debug)]
pub(super) struct StatsSums<F> {
    /// Sums of squares.
    weight: [f64; BLOCK],
    grad: [f64; BLOCK],
    update: [f64; BLOCK],
    /// The largest magnitude of the update.
    largest: [F; BLOCK],
    zeros: [u32; BLOCK],
    nonfinite: u32,
}

impl<F: Real> Default for StatsSums<F> {
    fn default() -> Self {
        let sums = [0.0; BLOCK];
        Self { weight: sums, grad: sums, update: sums, largest: [F::ZERO; BLOCK], zeros: [0; BLOCK], nonfinite: 0 }
    }
}

impl<F: Real> StatsSums<F> {
    /// The numbers of the reduction block, its lanes reduced.
    pub(super) fn values(&self) -> [f64; STATS] {
        let sum = |lanes| reduce(lanes, |a, b| a + b);
        [
            sum(self.weight),
            sum(self.grad),
            sum(self.update),
            reduce(self.largest.map(Real::wide), f64::max_or_nan),
            f64::from(self.zeros.iter().sum::<u32>()),
            f64::from(self.nonfinite),
        ]
    }
}

impl<E: Element> StatsAccumulator<E> for StatsSums<E::Real> {
    const ENABLED: bool = true;

    #[inline(always)]
    fn observe<const L: usize>(&mut self, before: &[E::Real; L], grad: &[E::Real; L], after: &[E::Real; L]) {
        // One loop for each: together they need more registers than there are.
        add_squares(&mut self.weight, before);
        add_squares(&mut self.grad, grad);
        for (zeros, grad) in self.zeros.iter_mut().zip(grad) {
            *zeros += u32::from(*grad == E::Real::ZERO);
        }
        let mut update = [E::Real::ZERO; L];
        for ((update, before), after) in update.iter_mut().zip(before).zip(after) {
            *update = *after - *before;
        }
        add_squares(&mut self.update, &update);
        for (largest, update) in self.largest.iter_mut().zip(&update) {
            *largest = largest.max_or_nan(update.abs());
        }
    }

    #[inline(always)]
    fn finish(&mut self, grad: &[E]) {
        let rest = grad.len() % BLOCK;
        if rest > 0 {
            for padding in &mut self.zeros[rest..] {
                *padding -= 1;
            }
        }
        // Elements are counted only if a sum of squares is not finite, which is rare.
        if self.grad.iter().any(|sum| !sum.is_finite()) {
            let finite = |element: &E| element.load() - element.load() == E::Real::ZERO;
            self.nonfinite += grad.iter().map(|element| u32::from(!finite(element))).sum::<u32>();
        }
    }
}

#[inline(always)]
fn add_squares<F: Real>(sums: &mut [f64; BLOCK], values: &[F]) {
    for (sum, value) in sums.iter_mut().zip(values) {
        *sum += value.wide() * value.wide();
    }
}

impl Stats {
    /// The statistics of a tensor, from its reduction blocks in order.
    pub(super) fn from_blocks(blocks: impl Iterator<Item = [f64; STATS]>) -> Self {
        let mut sums = [0.0; STATS];
        for block in blocks {
            for (k, (sum, value)) in sums.iter_mut().zip(block).enumerate() {
                *sum = if k == 3 { sum.max_or_nan(value) } else { *sum + value };
            }
        }
        let [weight, grad, update, update_max, zeros, nonfinite] = sums;
        Self {
            weight_norm: weight.sqrt(),
            grad_norm: grad.sqrt(),
            update_norm: update.sqrt(),
            update_max,
            zeros,
            nonfinite,
        }
    }
}
