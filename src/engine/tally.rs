//! Statistics of a step, taken from the tiles while they lie in L1.

use super::format::Cell;
use super::reduce::{LANES, ROWS, reduced};
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
            lanes.add_rows(before, grad, weight);
        }
        let rest = grad_rest.len();
        if rest > 0 {
            // Zeros add nothing but to the zeros that are counted.
            let mut padded = [[C::ZERO; ROWS * LANES]; 3];
            for (padded, rest) in padded.iter_mut().zip([before_rest, grad_rest, weight_rest]) {
                padded[..rest.len()].copy_from_slice(rest);
            }
            lanes.add_rows(&padded[0], &padded[1], &padded[2]);
            for i in rest..ROWS * LANES {
                lanes.zeros[i % LANES] -= 1;
            }
        }
        *self = lanes;
    }

    /// Adds some elements to each lane. A loop for each statistic: the compiler makes vectors of each.
    #[inline(always)]
    #[expect(clippy::eq_op, reason = "what is infinite or NaN is NaN when it is subtracted from itself")]
    fn add_rows<C: Cell>(&mut self, before: &[C; ROWS * LANES], grad: &[C; ROWS * LANES], weight: &[C; ROWS * LANES]) {
        let rows = |lane: usize| (0..ROWS).map(move |row| row * LANES + lane);
        for (lane, sum) in self.weight.iter_mut().enumerate() {
            *sum = rows(lane).map(|i| before[i].load().wide()).fold(*sum, |sum, x| sum + x * x);
        }
        for (lane, sum) in self.grad.iter_mut().enumerate() {
            *sum = rows(lane).map(|i| grad[i].load().wide()).fold(*sum, |sum, x| sum + x * x);
        }
        for (lane, (sum, largest)) in self.update.iter_mut().zip(&mut self.largest).enumerate() {
            for i in rows(lane) {
                let x = (weight[i].load() - before[i].load()).wide();
                *sum += x * x;
                *largest = largest.max_or_nan(x.abs());
            }
        }
        for (lane, (zeros, nonfinite)) in self.zeros.iter_mut().zip(&mut self.nonfinite).enumerate() {
            for i in rows(lane) {
                let x = grad[i].load();
                *zeros += u32::from(x == C::Real::ZERO);
                *nonfinite += u32::from(!(x - x == C::Real::ZERO));
            }
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
