//! Reductions: sums over whole tensors, in an order that nothing but the tensor's shape decides.
//!
//! A tensor is cut into *units* of [`UNIT`] elements. A unit is summed in [`LANES`] parallel sums of `f64`, element `i` in lane
//! `i mod LANES`; the lanes are added pairwise, then the units one after the other, then the tensors. Threads take whole
//! units, and levels share the lanes, so the result has the same bits for any of them.
//!
//! There are so many lanes that the compiler leaves the loop over them a loop, and makes vectors of it. One over 32 it unrolls
//! first, and then adds one number at a time.

use std::array;
use std::sync::atomic::{AtomicU64, Ordering};

use super::format::Cell;
use crate::rule::Real;

/// Elements to a unit.
pub(super) const UNIT: usize = 4096;

/// Parallel sums.
pub(super) const LANES: usize = 64;

/// How many elements a lane takes before its sum goes back to memory.
pub(super) const ROWS: usize = 4;

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
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "1" => Some(Self::One),
            "2" => Some(Self::Two),
            "inf" => Some(Self::Max),
            _ => None,
        }
    }

    /// The norm, of the sums of all units in order.
    pub(super) fn total(self, sums: impl Iterator<Item = f64>) -> f64 {
        match self {
            Self::One => sums.sum(),
            Self::Two => sums.sum::<f64>().sqrt(),
            Self::Max => sums.fold(0.0, f64::max_or_nan),
        }
    }
}

/// Parallel sums, one to a lane.
pub(super) struct Lanes<Fold> {
    sums: [f64; LANES],
    fold: Fold,
}

impl<Fold: Fn(f64, f64) -> f64> Lanes<Fold> {
    #[inline(always)]
    pub(super) fn new(fold: Fold) -> Self {
        Self { sums: [0.0; LANES], fold }
    }

    /// Adds elements, the first of which belongs to lane 0, each multiplied by a factor.
    #[inline(always)]
    pub(super) fn add<C: Cell>(&mut self, cells: &[C], scale: C::Real) {
        let Self { sums, fold } = self;
        let (groups, rest) = cells.as_chunks::<{ ROWS * LANES }>();
        for group in groups {
            for (lane, sum) in sums.iter_mut().enumerate() {
                let mut total = *sum;
                for row in 0..ROWS {
                    total = fold(total, (group[row * LANES + lane].load() * scale).wide());
                }
                *sum = total;
            }
        }
        for block in rest.chunks(LANES) {
            for (sum, x) in sums.iter_mut().zip(block) {
                *sum = fold(*sum, (x.load() * scale).wide());
            }
        }
    }

    #[inline(always)]
    pub(super) fn reduced(&self, join: impl Fn(f64, f64) -> f64) -> f64 {
        reduced(self.sums, join)
    }
}

/// The lanes joined pairwise: the first half with the second, until one is left.
#[inline(always)]
pub(super) fn reduced(mut lanes: [f64; LANES], join: impl Fn(f64, f64) -> f64) -> f64 {
    let mut width = LANES;
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
pub(super) struct Units<const K: usize>(Vec<[AtomicU64; K]>);

impl<const K: usize> Default for Units<K> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<const K: usize> Units<K> {
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
