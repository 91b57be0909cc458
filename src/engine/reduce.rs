//! Reductions over whole tensors, in an order that depends on shapes alone.
//!
//! ```text
//! tensor = reduction blocks of 4096 elements
//! lanes[i mod 32] += fold(element i)         within a reduction block, in f64
//! block  = lanes added pairwise              16 + 16, 8 + 8, …
//! total  = blocks, then tensors, one after the other
//! ```
//!
//! A thread takes whole reduction blocks and every instruction set has the same 32 lanes, so the bits are the same for any
//! number of threads and any level.
//!
//! The lanes are locals of a loop over whole blocks of 32, which the compiler keeps in vector registers. Lanes in memory take
//! twice the time.

use std::array;
use std::sync::atomic::{AtomicU64, Ordering};

use super::format::Element;
use crate::rule::Real;

pub(super) const REDUCTION_BLOCK: usize = 4096;

/// Elements of a block, and lanes of a reduction: two 512-bit vectors of `f32`, four of `f64`, which is enough to hide the
/// latency of an addition.
pub const BLOCK: usize = 32;

/// Pads what is left of whole blocks with zeros, which change no sum of magnitudes or squares, and no maximum.
///
/// A loop over `rest` itself would index the lanes by a variable, and so keep them in memory.
#[inline(always)]
pub(super) fn padded<E: Element>(rest: &[E]) -> [E; BLOCK] {
    let mut block = [E::ZERO; BLOCK];
    block[..rest.len()].copy_from_slice(rest);
    block
}

/// A norm.
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
    /// The norm named `"1"`, `"2"` or `"inf"`.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "1" => Some(Self::One),
            "2" => Some(Self::Two),
            "inf" => Some(Self::Max),
            _ => None,
        }
    }

    /// Reduces the lanes of a reduction block.
    ///
    /// Not inlined into the function that fills the lanes: there the compiler would make vectors of two lanes, in the order of
    /// this reduction.
    pub(super) fn reduce_lanes(self, lanes: [f64; BLOCK]) -> f64 {
        match self {
            Self::One | Self::Two => reduce(lanes, |a, b| a + b),
            Self::Max => reduce(lanes, f64::max_or_nan),
        }
    }

    /// Reduces the sums of all reduction blocks, in order.
    pub(super) fn total(self, sums: impl Iterator<Item = f64>) -> f64 {
        match self {
            Self::One | Self::Two => sums.sum(),
            Self::Max => sums.fold(0.0, f64::max_or_nan),
        }
    }

    /// The norm, from the [`total`](Self::total).
    pub(super) fn of_total(self, total: f64) -> f64 {
        if self == Self::Two { total.sqrt() } else { total }
    }

    /// Whether nothing in a total, of `float64` elements or of `float32` ones alone, can have overflowed or underflowed. Squares
    /// of `float32` numbers can't in `f64`.
    pub(super) fn is_exact(self, total: f64, has_float64: bool) -> bool {
        const LEAST: f64 = 1e-280;
        total.is_finite() && (self != Self::Two || !has_float64 || total >= LEAST)
    }
}

/// Folds elements into the lanes, the first into lane 0.
#[inline(always)]
pub(super) fn fold_into<E: Element>(lanes: &mut [f64; BLOCK], elements: &[E], fold: impl Fn(f64, E::Real) -> f64) {
    let mut sums = *lanes;
    let mut add = |block: &[E; BLOCK]| {
        for (sum, element) in sums.iter_mut().zip(block) {
            *sum = fold(*sum, element.load());
        }
    };
    let (blocks, rest) = elements.as_chunks();
    for block in blocks {
        add(block);
    }
    add(&padded(rest));
    *lanes = sums;
}

/// Reduces the lanes pairwise: the first half with the second, until one is left.
pub(super) fn reduce(mut lanes: [f64; BLOCK], join: impl Fn(f64, f64) -> f64) -> f64 {
    let mut width = BLOCK;
    while width > 1 {
        width /= 2;
        for lane in 0..width {
            lanes[lane] = join(lanes[lane], lanes[lane + width]);
        }
    }
    lanes[0]
}

/// `K` numbers for each reduction block, written by whichever thread has the block.
#[derive(Debug)]
pub(super) struct BlockSums<const K: usize>(Vec<[AtomicU64; K]>);

impl<const K: usize> Default for BlockSums<K> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<const K: usize> BlockSums<K> {
    pub(super) fn resize(&mut self, blocks: usize) {
        self.0.resize_with(blocks, || array::from_fn(|_| AtomicU64::new(0)));
    }

    pub(super) fn set(&self, block: usize, values: [f64; K]) {
        for (slot, value) in self.0[block].iter().zip(values) {
            slot.store(value.to_bits(), Ordering::Relaxed);
        }
    }

    pub(super) fn get(&self, block: usize) -> [f64; K] {
        self.0[block].each_ref().map(|slot| f64::from_bits(slot.load(Ordering::Relaxed)))
    }
}
