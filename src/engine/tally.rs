//! Statistics of a step, taken from the tiles while they lie in L1.

use super::format::Cell;
use super::reduce::Lanes;
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

/// The statistics of a unit, as they add up: squares of norms.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally([f64; TALLIES]);

impl Tally {
    /// Adds a tile of a unit.
    #[inline(always)]
    pub(super) fn add<C: Cell>(&mut self, before: &[C], grad: &[C], weight: &[C]) {
        let one = C::Real::ONE;
        let square = |sum: f64, x: f64| sum + x * x;
        let add = |a: f64, b: f64| a + b;
        let Self([weights, grads, updates, largest, zeros, nonfinite]) = self;
        *weights += Lanes::new(square).over(before, one).reduced(add);
        *grads += Lanes::new(square).over(grad, one).reduced(add);
        let (update, largest_update) = Lanes::of_differences(weight, before);
        *updates += update;
        *largest = largest.max_or_nan(largest_update);
        *zeros += Lanes::new(|sum, x: f64| if x == 0.0 { sum + 1.0 } else { sum }).over(grad, one).reduced(add);
        let finite = |sum, x: f64| if x.abs() <= f64::MAX { sum } else { sum + 1.0 };
        *nonfinite += Lanes::new(finite).over(grad, one).reduced(add);
    }

    pub(super) fn values(self) -> [f64; TALLIES] {
        self.0
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
