//! Statistics of a step, taken within the [loop](super::block) that moves the weights.

use super::format::Element;
use super::reduce::{BLOCK, reduced};
use crate::rule::Real;

/// What a step did to one tensor.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Stats {
    /// The Euclidean norm of the weight before the step.
    pub weight_norm: f64,
    /// That of the gradient as it was given, scaled by nothing.
    pub grad_norm: f64,
    /// That of the weight's movement.
    pub update_norm: f64,
    /// The largest movement of an element.
    pub update_max: f64,
    /// How many elements of the gradient are 0.
    pub zeros: f64,
    /// How many elements of the gradient are infinite or NaN.
    pub nonfinite: f64,
}

/// Numbers to a unit.
pub(super) const STATS: usize = 6;

/// What adds up in the loop that moves a tensor: the first element of a unit belongs to lane 0.
pub(super) trait StatsAccumulator<C: Element>: Copy {
    /// Whether it looks at anything.
    const ENABLED: bool;

    /// Looks at a block of the weight before the step, the gradient, and the weight after it.
    fn observe<const L: usize>(&mut self, before: &[C::Real; L], grad: &[C::Real; L], after: &[C::Real; L]);

    /// Looks at a part of a gradient of which each block was seen, and the last one filled up with zeros.
    fn end(&mut self, grad: &[C]);
}

/// Looks at nothing.
#[derive(Clone, Copy, Debug)]
pub(super) struct NoStats;

impl<C: Element> StatsAccumulator<C> for NoStats {
    const ENABLED: bool = false;

    #[inline(always)]
    fn observe<const L: usize>(&mut self, _: &[C::Real; L], _: &[C::Real; L], _: &[C::Real; L]) {}

    #[inline(always)]
    fn end(&mut self, _: &[C]) {}
}

/// The sums and counts of all statistics.
#[derive(Clone, Copy, Debug)]
pub(super) struct StatsSums<F> {
    /// Sums of squares.
    weight: [f64; BLOCK],
    grad: [f64; BLOCK],
    update: [f64; BLOCK],
    /// The largest magnitude.
    largest: [F; BLOCK],
    /// Counts.
    zeros: [u32; BLOCK],
    nonfinite: u32,
}

impl<F: Real> Default for StatsSums<F> {
    fn default() -> Self {
        let zeros = [0.0; BLOCK];
        Self { weight: zeros, grad: zeros, update: zeros, largest: [F::ZERO; BLOCK], zeros: [0; BLOCK], nonfinite: 0 }
    }
}

impl<F: Real> StatsSums<F> {
    /// The numbers of the unit, with the lanes added up.
    pub(super) fn values(&self) -> [f64; STATS] {
        [
            sum(self.weight),
            sum(self.grad),
            sum(self.update),
            reduced(self.largest.map(Real::wide), f64::max_or_nan),
            f64::from(self.zeros.iter().sum::<u32>()),
            f64::from(self.nonfinite),
        ]
    }
}

impl<C: Element> StatsAccumulator<C> for StatsSums<C::Real> {
    const ENABLED: bool = true;

    #[inline(always)]
    fn observe<const L: usize>(&mut self, before: &[C::Real; L], grad: &[C::Real; L], after: &[C::Real; L]) {
        // A loop for each: together they would need more registers than there are.
        add_squares(&mut self.weight, before);
        add_squares(&mut self.grad, grad);
        for (zeros, grad) in self.zeros.iter_mut().zip(grad) {
            *zeros += u32::from(*grad == C::Real::ZERO);
        }
        let mut update = [C::Real::ZERO; L];
        for ((update, before), after) in update.iter_mut().zip(before).zip(after) {
            *update = *after - *before;
        }
        add_squares(&mut self.update, &update);
        for (largest, update) in self.largest.iter_mut().zip(&update) {
            *largest = largest.max_or_nan(update.abs());
        }
    }

    #[inline(always)]
    fn end(&mut self, grad: &[C]) {
        let rest = grad.len() % BLOCK;
        if rest > 0 {
            for padding in &mut self.zeros[rest..] {
                *padding -= 1;
            }
        }
        // Nearly all gradients are finite, and a sum of squares shows it.
        if self.grad.iter().any(|sum| !sum.is_finite()) {
            let finite = |cell: &C| cell.load() - cell.load() == C::Real::ZERO;
            self.nonfinite += grad.iter().map(|cell| u32::from(!finite(cell))).sum::<u32>();
        }
    }
}

#[inline(always)]
fn add_squares<F: Real>(sums: &mut [f64; BLOCK], values: &[F]) {
    for (sum, value) in sums.iter_mut().zip(values) {
        *sum += value.wide() * value.wide();
    }
}

fn sum(lanes: [f64; BLOCK]) -> f64 {
    reduced(lanes, |a, b| a + b)
}

impl Stats {
    /// Those of a tensor, of its units in order.
    pub(super) fn of_units(units: impl Iterator<Item = [f64; STATS]>) -> Self {
        let mut sums = [0.0; STATS];
        for unit in units {
            for (k, (sum, value)) in sums.iter_mut().zip(unit).enumerate() {
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
