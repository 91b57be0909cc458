//! The inner loop, and the only caller of [`Rule::apply`].
//!
//! ```text
//! for i in 0..len {
//!     w, s = rule.apply(weight[i] * scales.weight, grad[i] * scales.grad, state[i])
//!     weight[i], state[i], average[i] = w, rule.flush(s), average.update(average[i], w)
//! }
//! ```
//!
//! This is scalar code, which the compiler vectorises for every rule because of two things: slices of whole blocks of
//! [`BLOCK`] elements leave no remainder loop, and [`simd::run_loop`] passes each operand as an argument of its own, where
//! `&mut` means `noalias`. The remaining elements go through the same loop in blocks of [`SHORT`], the last one padded.
//!
//! With statistics the loop goes block by block, and the accumulator sees each block in registers. As a loop of its own over
//! L1 it added 50 to 90 % to a step, here 10 to 50 %.

use std::array;

use super::format::Element;
use super::reduce::{BLOCK, padded};
use super::simd::{self, Level, Loop};
use super::stage::{AverageUpdate, Scales};
use super::stats::{NoStats, StatsAccumulator};
use super::tensor::MAX_STATE;
use crate::rule::{Real, Rule};

/// Elements of a short block: one 256-bit vector of `f32`, two of `f64`.
const SHORT: usize = 8;

/// The update of one element.
#[derive(Clone, Copy)]
pub(super) struct ElementUpdate<F, R, A, const N: usize> {
    pub(super) rule: R,
    pub(super) scales: Scales<F>,
    pub(super) average: A,
}

/// Updates weight and states of one length, and the average, which is empty if there is none.
///
/// # Panics
/// If the lengths differ.
#[inline(always)]
pub(super) fn apply<
    E: Element,
    R: Rule<E::Real, N>,
    A: AverageUpdate<E::Real>,
    S: StatsAccumulator<E>,
    const N: usize,
>(
    level: Level,
    update: ElementUpdate<E::Real, R, A, N>,
    weight: &mut [E],
    grad: &[E],
    state: [&mut [E]; N],
    average: &mut [E],
    stats: &mut S,
) {
    assert!(grad.len() == weight.len() && state.iter().all(|state| state.len() == weight.len()));
    assert!(average.len() == if A::ENABLED { weight.len() } else { 0 });
    let (weight, weight_tail) = weight.as_chunks_mut::<BLOCK>();
    let (grad_blocks, grad_tail) = grad.as_chunks();
    let (state, state_tail) = split(state);
    let (average, average_tail) = average.as_chunks_mut();
    if !weight.is_empty() {
        run_loop(level, update, weight, grad_blocks, state, average, stats);
    }
    if !weight_tail.is_empty() {
        let before = if S::ENABLED { padded(weight_tail) } else { [E::ZERO; BLOCK] };
        apply_tail(level, update, weight_tail, grad_tail, state_tail, average_tail);
        if S::ENABLED {
            let [before, grad, after] =
                [before, padded(grad_tail), padded(weight_tail)].map(|block| block.map(E::load));
            stats.observe(&before, &grad, &after);
        }
    }
    stats.finish(grad);
}

/// Updates fewer elements than a block, in short blocks.
#[inline(always)]
fn apply_tail<E: Element, R: Rule<E::Real, N>, A: AverageUpdate<E::Real>, const N: usize>(
    level: Level,
    update: ElementUpdate<E::Real, R, A, N>,
    weight: &mut [E],
    grad: &[E],
    state: [&mut [E]; N],
    average: &mut [E],
) {
    // A 512-bit vector is longer than a short block.
    let level = if level == Level::Avx512 { Level::Avx2 } else { level };
    let (weight, weight_tail) = weight.as_chunks_mut::<SHORT>();
    let (grad, grad_tail) = grad.as_chunks();
    let (state, mut state_tail) = split(state);
    let (average, average_tail) = average.as_chunks_mut();
    if !weight.is_empty() {
        run_loop(level, update, weight, grad, state, average, &mut NoStats);
    }
    if weight_tail.is_empty() {
        return;
    }
    let mut padded_weight = pad(weight_tail);
    let mut padded_state = state_tail.each_ref().map(|tail| pad(tail));
    let state = padded_state.each_mut().map(array::from_mut).map(<[_; 1]>::as_mut_slice);
    let mut padded_average = pad(average_tail);
    let average = if A::ENABLED { array::from_mut(&mut padded_average).as_mut_slice() } else { &mut [] };
    run_loop(level, update, array::from_mut(&mut padded_weight), &[pad(grad_tail)], state, average, &mut NoStats);
    unpad(&padded_average, average_tail);
    unpad(&padded_weight, weight_tail);
    for (tail, padded) in state_tail.iter_mut().zip(&padded_state) {
        unpad(padded, tail);
    }
}

/// Splits each state into whole blocks and a tail.
#[inline(always)]
fn split<E, const L: usize, const N: usize>(state: [&mut [E]; N]) -> ([&mut [[E; L]]; N], [&mut [E]; N]) {
    let mut tails = array::from_fn(|_| <&mut [E]>::default());
    let mut k = 0;
    let blocks = state.map(|state| {
        let (blocks, tail) = state.as_chunks_mut();
        tails[k] = tail;
        k += 1;
        blocks
    });
    (blocks, tails)
}

#[inline(always)]
fn run_loop<E: Element, S, const N: usize, const L: usize>(
    level: Level,
    body: impl Loop<E, S>,
    weight: &mut [[E; L]],
    grad: &[[E; L]],
    state: [&mut [[E; L]]; N],
    average: &mut [[E; L]],
    stats: &mut S,
) {
    let mut state = state.into_iter();
    let state = array::from_fn(|_| state.next().unwrap_or_default());
    simd::run_loop(level, body, weight, grad, state, average, stats);
}

#[inline(always)]
fn pad<E: Element>(tail: &[E]) -> [E; SHORT] {
    let mut block = [E::ZERO; SHORT];
    block[..tail.len()].copy_from_slice(tail);
    block
}

#[inline(always)]
fn unpad<E: Element>(block: &[E; SHORT], tail: &mut [E]) {
    tail.copy_from_slice(&block[..tail.len()]);
}

impl<F: Real, R: Rule<F, N>, A: AverageUpdate<F>, const N: usize> ElementUpdate<F, R, A, N> {
    /// Returns the new weight and states.
    #[inline(always)]
    fn apply(self, weight: F, grad: F, state: [F; N]) -> (F, [F; N]) {
        let (weight, state) = self.rule.apply(weight * self.scales.weight, grad * self.scales.grad, state);
        (weight, self.rule.flush(state))
    }
}

impl<E: Element, R: Rule<E::Real, N>, A: AverageUpdate<E::Real>, S: StatsAccumulator<E>, const N: usize> Loop<E, S>
    for ElementUpdate<E::Real, R, A, N>
{
    const DIVIDES: bool = R::DIVIDES;

    #[inline(always)]
    fn run<const L: usize>(
        self,
        weight: &mut [[E; L]],
        grad: &[[E; L]],
        state: [&mut [[E; L]]; MAX_STATE],
        average: &mut [[E; L]],
        stats: &mut S,
    ) {
        let mut state = state.into_iter();
        let mut state: [&mut [[E; L]]; N] = array::from_fn(|_| state.next().unwrap_or_default());
        // `apply` has compared the lengths; comparing them here too removes every bounds check from the loops.
        let blocks = weight.len();
        assert!(grad.len() == blocks && state.iter().all(|state| state.len() == blocks));
        assert!(!A::ENABLED || average.len() == blocks);
        if !S::ENABLED {
            let (weight, grad, average) = (weight.as_flattened_mut(), grad.as_flattened(), average.as_flattened_mut());
            let state = state.map(<[_]>::as_flattened_mut);
            for i in 0..blocks * L {
                let (after, next) =
                    self.apply(weight[i].load(), grad[i].load(), array::from_fn(|k| state[k][i].load()));
                weight[i] = E::store(after);
                for k in 0..N {
                    state[k][i] = E::store(next[k]);
                }
                if A::ENABLED {
                    average[i] = E::store(self.average.update(average[i].load(), after));
                }
            }
            return;
        }
        // A local, which the compiler keeps in registers.
        let mut sums = *stats;
        for i in 0..blocks {
            // Weight and gradient are loaded once, for the rule and for the statistics.
            let (before, grad) = (weight[i].map(E::load), grad[i].map(E::load));
            let state = state.each_mut().map(|state| &mut state[i]);
            let mut after = [E::Real::ZERO; L];
            for j in 0..L {
                let (weight, next) = self.apply(before[j], grad[j], array::from_fn(|k| state[k][j].load()));
                after[j] = weight;
                for k in 0..N {
                    state[k][j] = E::store(next[k]);
                }
                if A::ENABLED {
                    average[i][j] = E::store(self.average.update(average[i][j].load(), weight));
                }
            }
            weight[i] = after.map(E::store);
            sums.observe(&before, &grad, &after);
        }
        *stats = sums;
    }
}
