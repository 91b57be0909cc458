//! The inner loop: a rule over weights, gradients and states; the tail goes through the same code in short blocks.
//!
//! The loop is the plain one, an element at a time; the compiler makes vectors of it. Two things let it do so for every rule:
//! whole blocks of [`BLOCK`] leave no remainder, and each operand is an argument of its own to the function that enables
//! the instruction set ([`simd::enter`]), where Rust's rules of borrowing become the compiler's knowledge that none overlaps
//! another. This is the only caller of [`Rule::apply`].
//!
//! Where a stats looks on, the loop goes a block at a time, and the stats sees each block while it lies in registers. As a loop
//! of its own, over cells that lie in L1 by then, it took as long as memory does, one after the other.

use std::array;

use super::format::Element;
use super::reduce::{BLOCK, padded};
use super::simd::{self, Level, Loop};
use super::stage::{AverageUpdate, Scales};
use super::stats::{NoStats, StatsAccumulator};
use super::tensor::MAX_STATE;
use crate::rule::{Real, Rule};

/// Elements to a short block, of which the tail is made: one 256-bit vector of `f32`, two of `f64`.
const SHORT: usize = 8;

/// How each element moves.
#[derive(Clone, Copy)]
pub(super) struct ElementUpdate<F, R, B, const N: usize> {
    pub(super) rule: R,
    pub(super) scales: Scales<F>,
    pub(super) blend: B,
}

/// Moves weights and states of one length by their gradients, and the average, which is empty if there is none. The stats sees
/// each block before and after.
///
/// # Panics
/// If the lengths differ.
#[inline(always)]
pub(super) fn apply<
    C: Element,
    R: Rule<C::Real, N>,
    B: AverageUpdate<C::Real>,
    T: StatsAccumulator<C>,
    const N: usize,
>(
    level: Level,
    motion: ElementUpdate<C::Real, R, B, N>,
    weight: &mut [C],
    grad: &[C],
    state: [&mut [C]; N],
    average: &mut [C],
    stats: &mut T,
) {
    assert!(grad.len() == weight.len() && state.iter().all(|state| state.len() == weight.len()));
    assert!(average.len() == if B::ENABLED { weight.len() } else { 0 });
    let (weight, weight_tail) = weight.as_chunks_mut::<BLOCK>();
    let (grad_blocks, grad_tail) = grad.as_chunks();
    let (state, state_tail) = split(state);
    let (average, average_tail) = average.as_chunks_mut();
    if !weight.is_empty() {
        enter(level, motion, weight, grad_blocks, state, average, stats);
    }
    if !weight_tail.is_empty() {
        let before = if T::ENABLED { padded(weight_tail) } else { [C::ZERO; BLOCK] };
        apply_tail(level, motion, weight_tail, grad_tail, state_tail, average_tail);
        if T::ENABLED {
            let [before, grad, after] = [before, padded(grad_tail), padded(weight_tail)].map(|row| row.map(C::load));
            stats.observe(&before, &grad, &after);
        }
    }
    stats.end(grad);
}

/// What is left of whole blocks, in short ones.
#[inline(always)]
fn apply_tail<C: Element, R: Rule<C::Real, N>, B: AverageUpdate<C::Real>, const N: usize>(
    level: Level,
    motion: ElementUpdate<C::Real, R, B, N>,
    weight: &mut [C],
    grad: &[C],
    state: [&mut [C]; N],
    average: &mut [C],
) {
    // A vector of 512 bits would be longer than a short block.
    let level = if level == Level::Avx512 { Level::Avx2 } else { level };
    let (weight, weight_tail) = weight.as_chunks_mut::<SHORT>();
    let (grad, grad_tail) = grad.as_chunks();
    let (state, mut state_tail) = split(state);
    let (average, average_tail) = average.as_chunks_mut();
    if !weight.is_empty() {
        enter(level, motion, weight, grad, state, average, &mut NoStats);
    }
    if weight_tail.is_empty() {
        return;
    }
    let mut padded_weight = pad(weight_tail);
    let mut padded_state = state_tail.each_ref().map(|tail| pad(tail));
    let state = padded_state.each_mut().map(array::from_mut).map(<[_; 1]>::as_mut_slice);
    let mut padded_average = pad(average_tail);
    let average = if B::ENABLED { array::from_mut(&mut padded_average).as_mut_slice() } else { &mut [] };
    enter(level, motion, array::from_mut(&mut padded_weight), &[pad(grad_tail)], state, average, &mut NoStats);
    unpad(&padded_average, average_tail);
    unpad(&padded_weight, weight_tail);
    for (tail, padded) in state_tail.iter_mut().zip(&padded_state) {
        unpad(padded, tail);
    }
}

/// Whole blocks, and the rest.
#[inline(always)]
fn split<C, const L: usize, const N: usize>(state: [&mut [C]; N]) -> ([&mut [[C; L]]; N], [&mut [C]; N]) {
    let mut rest = array::from_fn(|_| <&mut [C]>::default());
    let mut k = 0;
    let blocks = state.map(|state| {
        let (blocks, tail) = state.as_chunks_mut();
        rest[k] = tail;
        k += 1;
        blocks
    });
    (blocks, rest)
}

#[inline(always)]
fn enter<C: Element, T, const N: usize, const L: usize>(
    level: Level,
    body: impl Loop<C, T>,
    weight: &mut [[C; L]],
    grad: &[[C; L]],
    state: [&mut [[C; L]]; N],
    average: &mut [[C; L]],
    stats: &mut T,
) {
    let mut state = state.into_iter();
    let state = array::from_fn(|_| state.next().unwrap_or_default());
    simd::enter(level, body, weight, grad, state, average, stats);
}

#[inline(always)]
fn pad<C: Element>(tail: &[C]) -> [C; SHORT] {
    let mut block = [C::ZERO; SHORT];
    block[..tail.len()].copy_from_slice(tail);
    block
}

#[inline(always)]
fn unpad<C: Element>(block: &[C; SHORT], tail: &mut [C]) {
    tail.copy_from_slice(&block[..tail.len()]);
}

impl<F: Real, R: Rule<F, N>, B: AverageUpdate<F>, const N: usize> ElementUpdate<F, R, B, N> {
    /// The new weight and states of an element.
    #[inline(always)]
    fn of_one(self, weight: F, grad: F, state: [F; N]) -> (F, [F; N]) {
        let (moved, state) = self.rule.apply(weight * self.scales.weight, grad * self.scales.grad, state);
        (moved, self.rule.flush(state))
    }
}

impl<C: Element, R: Rule<C::Real, N>, B: AverageUpdate<C::Real>, T: StatsAccumulator<C>, const N: usize> Loop<C, T>
    for ElementUpdate<C::Real, R, B, N>
{
    const DIVIDES: bool = R::DIVIDES;

    #[inline(always)]
    fn run<const L: usize>(
        self,
        weight: &mut [[C; L]],
        grad: &[[C; L]],
        state: [&mut [[C; L]]; MAX_STATE],
        average: &mut [[C; L]],
        stats: &mut T,
    ) {
        let mut state = state.into_iter();
        let mut state: [&mut [[C; L]]; N] = array::from_fn(|_| state.next().unwrap_or_default());
        // `apply` has compared the lengths; here the compiler sees it, and drops every check inside the loops.
        let blocks = weight.len();
        assert!(grad.len() == blocks && state.iter().all(|state| state.len() == blocks));
        assert!(!B::ENABLED || average.len() == blocks);
        if !T::ENABLED {
            let (weight, grad, average) = (weight.as_flattened_mut(), grad.as_flattened(), average.as_flattened_mut());
            let state = state.map(<[_]>::as_flattened_mut);
            for i in 0..blocks * L {
                let (moved, next) =
                    self.of_one(weight[i].load(), grad[i].load(), array::from_fn(|k| state[k][i].load()));
                weight[i] = C::store(moved);
                for k in 0..N {
                    state[k][i] = C::store(next[k]);
                }
                if B::ENABLED {
                    average[i] = C::store(self.blend.blend(average[i].load(), moved));
                }
            }
            return;
        }
        // A local, which the compiler keeps in registers.
        let mut sums = *stats;
        for i in 0..blocks {
            // Weight and gradient are loaded once, for the rule and for the stats.
            let (before, given) = (weight[i].map(C::load), grad[i].map(C::load));
            let state = state.each_mut().map(|state| &mut state[i]);
            let mut after = [C::Real::ZERO; L];
            for j in 0..L {
                let (moved, next) = self.of_one(before[j], given[j], array::from_fn(|k| state[k][j].load()));
                after[j] = moved;
                for k in 0..N {
                    state[k][j] = C::store(next[k]);
                }
                if B::ENABLED {
                    average[i][j] = C::store(self.blend.blend(average[i][j].load(), moved));
                }
            }
            weight[i] = after.map(C::store);
            sums.observe(&before, &given, &after);
        }
        *stats = sums;
    }
}
