//! The inner loop: a rule over weights, gradients and states; the tail goes through the same code in short blocks.
//!
//! The loop is the plain one, an element at a time; the compiler makes vectors of it. Two things let it do so for every rule:
//! whole blocks of [`LANES`] leave no remainder, and each operand is an argument of its own to the function that enables
//! the instruction set ([`simd::enter`]), where Rust's rules of borrowing become the compiler's knowledge that none overlaps
//! another. This is the only caller of [`Rule::apply`].

use std::array;

use super::format::Cell;
use super::simd::{self, Body, Level};
use super::stage::{Blend, Scales};
use super::tensor::MAX_STATE;
use crate::rule::{Real, Rule};

/// Elements to a block: two 512-bit vectors of `f32`, four of `f64`.
pub const LANES: usize = 32;

/// Elements to a short block, of which the tail is made: one 256-bit vector of `f32`, two of `f64`.
const SHORT: usize = 8;

/// Applies the rule to weights, gradients and states of one length, and blends the weights into an average, which is empty if
/// there is none.
///
/// # Panics
/// If the lengths differ.
#[inline(always)]
pub(super) fn apply<C: Cell, R: Rule<C::Real, N>, B: Blend<C::Real>, const N: usize>(
    level: Level,
    rule: R,
    scales: Scales<C::Real>,
    weight: &mut [C],
    grad: &[C],
    state: [&mut [C]; N],
    (blend, average): (B, &mut [C]),
) {
    assert!(grad.len() == weight.len() && state.iter().all(|state| state.len() == weight.len()));
    assert!(average.len() == if B::USED { weight.len() } else { 0 });
    let body = Elementwise { rule, scales, blend };
    let (weight, weight_tail) = weight.as_chunks_mut::<LANES>();
    let (grad, grad_tail) = grad.as_chunks();
    let (state, state_tail) = split(state);
    let (average, average_tail) = average.as_chunks_mut();
    if !weight.is_empty() {
        enter(level, body, weight, grad, state, average);
    }
    if weight_tail.is_empty() {
        return;
    }
    // A vector of 512 bits would be longer than a short block.
    let level = if level == Level::Avx512 { Level::Avx2 } else { level };
    let (weight, weight_tail) = weight_tail.as_chunks_mut::<SHORT>();
    let (grad, grad_tail) = grad_tail.as_chunks();
    let (state, mut state_tail) = split(state_tail);
    let (average, average_tail) = average_tail.as_chunks_mut();
    if !weight.is_empty() {
        enter(level, body, weight, grad, state, average);
    }
    if weight_tail.is_empty() {
        return;
    }
    let mut padded_weight = pad(weight_tail);
    let mut padded_state = state_tail.each_ref().map(|tail| pad(tail));
    let state = padded_state.each_mut().map(array::from_mut).map(<[_; 1]>::as_mut_slice);
    let mut padded_average = pad(average_tail);
    let average = if B::USED { array::from_mut(&mut padded_average).as_mut_slice() } else { &mut [] };
    enter(level, body, array::from_mut(&mut padded_weight), &[pad(grad_tail)], state, average);
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
fn enter<C: Cell, const N: usize, const L: usize>(
    level: Level,
    body: impl Body<C>,
    weight: &mut [[C; L]],
    grad: &[[C; L]],
    state: [&mut [[C; L]]; N],
    average: &mut [[C; L]],
) {
    let mut state = state.into_iter();
    let state = array::from_fn(|_| state.next().unwrap_or_default());
    simd::enter(level, body, weight, grad, state, average);
}

#[inline(always)]
fn pad<C: Cell>(tail: &[C]) -> [C; SHORT] {
    let mut block = [C::ZERO; SHORT];
    block[..tail.len()].copy_from_slice(tail);
    block
}

#[inline(always)]
fn unpad<C: Cell>(block: &[C; SHORT], tail: &mut [C]) {
    tail.copy_from_slice(&block[..tail.len()]);
}

/// The loop of a rule with `N` states.
#[derive(Clone, Copy)]
struct Elementwise<F, R, B, const N: usize> {
    rule: R,
    scales: Scales<F>,
    blend: B,
}

impl<C: Cell, R: Rule<C::Real, N>, B: Blend<C::Real>, const N: usize> Body<C> for Elementwise<C::Real, R, B, N> {
    const DIVIDES: bool = R::DIVIDES;

    #[inline(always)]
    fn run<const L: usize>(
        self,
        weight: &mut [[C; L]],
        grad: &[[C; L]],
        state: [&mut [[C; L]]; MAX_STATE],
        average: &mut [[C; L]],
    ) {
        let (weight, grad, average) = (weight.as_flattened_mut(), grad.as_flattened(), average.as_flattened_mut());
        let mut state = state.into_iter();
        let state: [&mut [C]; N] = array::from_fn(|_| state.next().unwrap_or_default().as_flattened_mut());
        // `apply` has compared the lengths; here the compiler sees it, and drops every check inside the loop.
        let len = weight.len();
        assert!(grad.len() == len && state.iter().all(|state| state.len() == len));
        assert!(!B::USED || average.len() == len);
        for i in 0..len {
            let (w, g) = (weight[i].load() * self.scales.weight, grad[i].load() * self.scales.grad);
            let (moved, after) = self.rule.apply(w, g, array::from_fn(|k| state[k][i].load()));
            weight[i] = C::store(moved);
            for k in 0..N {
                state[k][i] = C::store(after[k].flush());
            }
            if B::USED {
                average[i] = C::store(self.blend.blend(average[i].load(), moved));
            }
        }
    }
}
