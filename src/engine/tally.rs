//! Statistics of a step, taken from the tiles while they lie in L1.

use super::format::Cell;
use super::reduce::{LANES, reduced};
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
pub(super) const TALLIES: usize = 6;

/// The statistics of a unit, as they add up in lanes.
#[derive(Clone, Copy, Debug)]
pub struct Tally {
    /// Sums of squares.
    weight: [f64; LANES],
    grad: [f64; LANES],
    update: [f64; LANES],
    /// The largest magnitude.
    largest: [f64; LANES],
    /// Counts.
    zeros: [u32; LANES],
    nonfinite: [u32; LANES],
}

impl Default for Tally {
    fn default() -> Self {
        let (sums, counts) = ([0.0; LANES], [0; LANES]);
        Self { weight: sums, grad: sums, update: sums, largest: sums, zeros: counts, nonfinite: counts }
    }
}

impl Tally {
    /// Adds a tile, the first element of which belongs to lane 0.
    #[inline(always)]
    pub(super) fn add<C: Cell>(&mut self, before: &[C], grad: &[C], weight: &[C]) {
        // On the stack no array overlaps another, and the compiler knows it.
        let mut lanes = *self;
        let (befores, before_rest) = before.as_chunks();
        let (grads, grad_rest) = grad.as_chunks();
        let (weights, weight_rest) = weight.as_chunks();
        for ((before, grad), weight) in befores.iter().zip(grads).zip(weights) {
            lanes.add_block(before, grad, weight);
        }
        if !before_rest.is_empty() {
            // Zeros add nothing but to the zeros that are counted.
            let mut block = [[C::ZERO; LANES]; 3];
            for (block, rest) in block.iter_mut().zip([before_rest, grad_rest, weight_rest]) {
                block[..rest.len()].copy_from_slice(rest);
            }
            let zeros = lanes.zeros;
            lanes.add_block(&block[0], &block[1], &block[2]);
            lanes.zeros[grad_rest.len()..].copy_from_slice(&zeros[grad_rest.len()..]);
        }
        *self = lanes;
    }

    /// Adds an element to each lane. A loop for each statistic: the compiler makes vectors of each.
    #[inline(always)]
    #[expect(clippy::needless_range_loop, reason = "several arrays side by side")]
    fn add_block<C: Cell>(&mut self, before: &[C; LANES], grad: &[C; LANES], weight: &[C; LANES]) {
        for lane in 0..LANES {
            let x = before[lane].load().wide();
            self.weight[lane] += x * x;
        }
        for lane in 0..LANES {
            let x = grad[lane].load().wide();
            self.grad[lane] += x * x;
        }
        for lane in 0..LANES {
            let x = (weight[lane].load() - before[lane].load()).wide();
            self.update[lane] += x * x;
            self.largest[lane] = self.largest[lane].max_or_nan(x.abs());
        }
        for lane in 0..LANES {
            let x = grad[lane].load();
            self.zeros[lane] += u32::from(x == C::Real::ZERO);
        }
        for lane in 0..LANES {
            // What is infinite or NaN is NaN when it is subtracted from itself.
            let x = grad[lane].load() - grad[lane].load();
            self.nonfinite[lane] += u32::from(!(x == C::Real::ZERO));
        }
    }

    /// The numbers of the unit, with the lanes added up.
    pub(super) fn values(&self) -> [f64; TALLIES] {
        let sum = |lanes| reduced(lanes, |a, b| a + b);
        let count = |lanes: [u32; LANES]| f64::from(lanes.iter().sum::<u32>());
        [
            sum(self.weight),
            sum(self.grad),
            sum(self.update),
            reduced(self.largest, f64::max_or_nan),
            count(self.zeros),
            count(self.nonfinite),
        ]
    }
}

impl Stats {
    /// Those of a tensor, of its units in order.
    pub(super) fn of_units(units: impl Iterator<Item = [f64; TALLIES]>) -> Self {
        let mut sums = [0.0; TALLIES];
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
