//! Statistics of a step, taken from the tiles while they lie in L1.

use super::format::Cell;
use super::reduce::{self, LANES, Row, padded, reduced};
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

/// What is looked at in a unit, as it adds up in lanes.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::large_enum_variant, reason = "one lies on the stack while a unit is moved")]
pub enum Tally {
    /// All statistics.
    Stats(Sums),
    /// The squares of the gradient, and of the weight after the step.
    Squares(Squares),
}

/// Two sums of squares.
#[derive(Clone, Copy, Debug, Default)]
pub struct Squares {
    grad: [f64; LANES],
    weight: [f64; LANES],
}

/// The sums and counts of all statistics.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sums {
    /// Sums of squares.
    weight: [f64; LANES],
    grad: [f64; LANES],
    update: [f64; LANES],
    /// The largest magnitude.
    largest: [f64; LANES],
    /// Counts.
    zeros: [u32; LANES],
    nonfinite: u32,
}

// In all of these the first element of a tile belongs to lane 0, and sums are locals, which the compiler keeps in registers.
impl Tally {
    /// Whether it looks at the weight before the step.
    pub(super) fn looks_before(&self) -> bool {
        matches!(self, Self::Stats(_))
    }

    /// Adds a tile of the weight before the step, and copies it, if it looks at that.
    #[inline(always)]
    pub(super) fn add_before<C: Cell>(&mut self, weight: &[C], copy: &mut [C]) {
        if let Self::Stats(sums) = self {
            sums.add_before(weight, copy);
        }
    }

    /// Adds a tile of the gradient, and of the weight after the step beside what it was before.
    #[inline(always)]
    pub(super) fn add_after<C: Cell>(&mut self, grad: &[C], before: &[C], weight: &[C]) {
        match self {
            Self::Stats(sums) => sums.add_after(grad, before, weight),
            Self::Squares(Squares { grad: of_grad, weight: of_weight }) => {
                reduce::add(of_grad, grad, add_square::<C::Real>);
                reduce::add(of_weight, weight, add_square::<C::Real>);
            }
        }
    }

    /// The numbers of the unit, with the lanes added up.
    pub(super) fn values(&self) -> [f64; TALLIES] {
        let sum = |lanes| reduced(lanes, |a, b| a + b);
        match self {
            Self::Stats(sums) => sums.values(),
            Self::Squares(Squares { grad, weight }) => [sum(*grad), sum(*weight), 0.0, 0.0, 0.0, 0.0],
        }
    }
}

impl Sums {
    #[inline(always)]
    fn add_before<C: Cell>(&mut self, weight: &[C], copy: &mut [C]) {
        copy.copy_from_slice(weight);
        reduce::add(&mut self.weight, copy, add_square::<C::Real>);
    }

    #[inline(always)]
    fn add_after<C: Cell>(&mut self, grad: &[C], before: &[C], weight: &[C]) {
        self.add_grad(grad);
        let (mut sums, mut largest) = (self.update, [C::Real::ZERO; LANES]);
        let mut add = |before: &Row<C>, after: &Row<C>| {
            for (((sum, largest), before), after) in sums.iter_mut().zip(&mut largest).zip(before).zip(after) {
                let update = after.load() - before.load();
                *largest = largest.max_or_nan(update.abs());
                *sum += update.wide() * update.wide();
            }
        };
        let (befores, before_rest) = before.as_chunks();
        let (afters, after_rest) = weight.as_chunks();
        for (before, after) in befores.iter().zip(afters) {
            add(before, after);
        }
        add(&padded(before_rest), &padded(after_rest));
        self.update = sums;
        for (most, largest) in self.largest.iter_mut().zip(largest) {
            *most = most.max_or_nan(largest.wide());
        }
    }

    #[inline(always)]
    fn add_grad<C: Cell>(&mut self, grad: &[C]) {
        let (mut sums, mut zeros) = (self.grad, self.zeros);
        let mut add = |row: &Row<C>| {
            for ((sum, zeros), grad) in sums.iter_mut().zip(&mut zeros).zip(row) {
                let grad = grad.load();
                *zeros += u32::from(grad == C::Real::ZERO);
                *sum += grad.wide() * grad.wide();
            }
        };
        let (rows, rest) = grad.as_chunks();
        for row in rows {
            add(row);
        }
        add(&padded(rest));
        (self.grad, self.zeros) = (sums, zeros);
        for padding in &mut self.zeros[rest.len()..] {
            *padding -= 1;
        }
        // Nearly all gradients are finite, and a sum of squares shows it.
        if sums.iter().any(|sum| !sum.is_finite()) {
            let finite = |cell: &C| cell.load() - cell.load() == C::Real::ZERO;
            self.nonfinite += grad.iter().map(|cell| u32::from(!finite(cell))).sum::<u32>();
        }
    }

    fn values(&self) -> [f64; TALLIES] {
        let sum = |lanes| reduced(lanes, |a, b| a + b);
        [
            sum(self.weight),
            sum(self.grad),
            sum(self.update),
            reduced(self.largest, f64::max_or_nan),
            f64::from(self.zeros.iter().sum::<u32>()),
            f64::from(self.nonfinite),
        ]
    }
}

#[inline(always)]
fn add_square<F: Real>(sum: f64, x: F) -> f64 {
    sum + x.wide() * x.wide()
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
