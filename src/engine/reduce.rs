//! Reductions: sums over whole tensors, in an order that nothing but the tensor's shape decides.
//!
//! A tensor is cut into *units* of [`REDUCTION_BLOCK`] elements. A unit is summed in [`BLOCK`] parallel sums of `f64`, element `i` in lane
//! `i mod BLOCK`; the lanes are added pairwise, then the units one after the other, then the tensors. Threads take whole
//! units, and levels share the lanes, so the result has the same bits for any of them.
//!
//! A tile's sums are locals of a loop over whole rows of lanes, which the compiler keeps in vector registers; sums that
//! lie in memory from row to row take twice the time.

use std::array;
use std::sync::atomic::{AtomicU64, Ordering};

use super::format::Element;
use crate::rule::Real;

/// Elements to a unit.
pub(super) const REDUCTION_BLOCK: usize = 4096;

/// Parallel sums, and elements to a block of the loop that moves them: two 512-bit vectors of `f32`, four of `f64`, enough to
/// hide how long an addition takes.
pub const BLOCK: usize = 32;

/// An element for each lane.
pub(super) type Row<C> = [C; BLOCK];

/// What is left of whole rows as one more: zeros add nothing to sums of magnitudes and of squares, nor to the largest.
///
/// A loop over `rest` itself would index the sums by a number that only it knows, and keep them all in memory.
#[inline(always)]
pub(super) fn padded<C: Element>(rest: &[C]) -> Row<C> {
    let mut row = [C::ZERO; BLOCK];
    row[..rest.len()].copy_from_slice(rest);
    row
}

/// Which norm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Norm {
    /// The sum of magnitudes.
    One,
    /// The root of the sum of squares.
    Two,
    /// The largest magnitude.
    Max,
}

impl Norm {
    /// The norm that a number, written out, stands for.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "1" => Some(Self::One),
            "2" => Some(Self::Two),
            "inf" => Some(Self::Max),
            _ => None,
        }
    }

    /// The number of a unit, of its lanes.
    ///
    /// Joined in the function that fills them, the compiler would make vectors of two lanes there, in the order of joining.
    pub(super) fn joined(self, lanes: [f64; BLOCK]) -> f64 {
        match self {
            Self::One | Self::Two => reduced(lanes, |a, b| a + b),
            Self::Max => reduced(lanes, f64::max_or_nan),
        }
    }

    /// The sum over all units, in order, that the norm is [made of](Self::of_sum).
    pub(super) fn total(self, sums: impl Iterator<Item = f64>) -> f64 {
        match self {
            Self::One | Self::Two => sums.sum(),
            Self::Max => sums.fold(0.0, f64::max_or_nan),
        }
    }

    /// The norm that a sum over all units comes to.
    pub(super) fn of_sum(self, sum: f64) -> f64 {
        if self == Self::Two { sum.sqrt() } else { sum }
    }

    /// Whether a sum of elements, with `float64` ones among them or without, says what their norm is: nothing that was added can have
    /// overflowed, or lost digits below the normal numbers. Squares of `float32` numbers do neither.
    pub(super) fn is_certain(self, sum: f64, has_wide: bool) -> bool {
        const LEAST: f64 = 1e-280;
        sum.is_finite() && (self != Self::Two || !has_wide || sum >= LEAST)
    }
}

/// Folds elements into the lanes, the first into lane 0.
#[inline(always)]
pub(super) fn add<C: Element>(lanes: &mut [f64; BLOCK], cells: &[C], fold: impl Fn(f64, C::Real) -> f64) {
    let mut sums = *lanes;
    let mut add = |row: &Row<C>| {
        for (sum, cell) in sums.iter_mut().zip(row) {
            *sum = fold(*sum, cell.load());
        }
    };
    let (rows, rest) = cells.as_chunks();
    for row in rows {
        add(row);
    }
    add(&padded(rest));
    *lanes = sums;
}

/// The lanes joined pairwise: the first half with the second, until one is left.
pub(super) fn reduced(mut lanes: [f64; BLOCK], join: impl Fn(f64, f64) -> f64) -> f64 {
    let mut width = BLOCK;
    while width > 1 {
        width /= 2;
        for lane in 0..width {
            lanes[lane] = join(lanes[lane], lanes[lane + width]);
        }
    }
    lanes[0]
}

/// Numbers of each unit, written by whichever thread has it.
#[derive(Debug)]
pub(super) struct BlockSums<const K: usize>(Vec<[AtomicU64; K]>);

impl<const K: usize> Default for BlockSums<K> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<const K: usize> BlockSums<K> {
    /// Room for so many units.
    pub(super) fn resize(&mut self, units: usize) {
        self.0.resize_with(units, || array::from_fn(|_| AtomicU64::new(0)));
    }

    pub(super) fn set(&self, unit: usize, values: [f64; K]) {
        for (slot, value) in self.0[unit].iter().zip(values) {
            slot.store(value.to_bits(), Ordering::Relaxed);
        }
    }

    pub(super) fn get(&self, unit: usize) -> [f64; K] {
        self.0[unit].each_ref().map(|slot| f64::from_bits(slot.load(Ordering::Relaxed)))
    }
}
