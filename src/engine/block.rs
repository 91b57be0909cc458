//! The inner loop: a rule over weights, gradients and states, and the tail on a padded block of the same code.
//!
//! The loop is the plain one, an element at a time; the compiler makes vectors of it. Two things let it do so for every rule:
//! whole blocks of [`LANES`] leave no remainder, and each operand is an argument of its own to the function that enables
//! the instruction set ([`simd::enter`]), where Rust's rules of borrowing become the compiler's knowledge that none overlaps
//! another. This is the only caller of [`Rule::apply`].

use std::array;

use super::format::Cell;
use super::simd::{self, Body, Level};
use super::stage::Scales;
use super::tensor::MAX_STATE;
use crate::rule::{Real, Rule};

/// Elements to a block: two 512-bit vectors of `f32`, four of `f64`.
pub const LANES: usize = 32;

/// A block of stored numbers.
pub(super) type Block<C> = [C; LANES];

/// Applies the rule to weights, gradients and states of one length.
///
/// # Panics
/// If the lengths differ.
#[inline(always)]
pub(super) fn apply<C: Cell, R: Rule<C::Real, N>, const N: usize>(
    level: Level,
    rule: R,
    scales: Scales<C::Real>,
    weight: &mut [C],
    grad: &[C],
    mut state: [&mut [C]; N],
) {
    assert!(grad.len() == weight.len() && state.iter().all(|state| state.len() == weight.len()));
    let whole = weight.len() - weight.len() % LANES;
    if whole > 0 {
        let state = state.each_mut().map(|state| state[..whole].as_chunks_mut().0);
        enter(level, rule, scales, weight[..whole].as_chunks_mut().0, grad[..whole].as_chunks().0, state);
    }
    if whole < weight.len() {
        let mut padded_weight = pad(&weight[whole..]);
        let mut padded_state = state.each_ref().map(|state| pad(&state[whole..]));
        let states = padded_state.each_mut().map(array::from_mut).map(<[_; 1]>::as_mut_slice);
        // The padded blocks were just written in pieces, for which a load of 512 bits would have to wait.
        let level = if level == Level::Avx512 { Level::Avx2 } else { level };
        enter(level, rule, scales, array::from_mut(&mut padded_weight), &[pad(&grad[whole..])], states);
        unpad(&padded_weight, &mut weight[whole..]);
        for (state, padded) in state.iter_mut().zip(&padded_state) {
            unpad(padded, &mut state[whole..]);
        }
    }
}

#[inline(always)]
fn enter<C: Cell, R: Rule<C::Real, N>, const N: usize>(
    level: Level,
    rule: R,
    scales: Scales<C::Real>,
    weight: &mut [Block<C>],
    grad: &[Block<C>],
    state: [&mut [Block<C>]; N],
) {
    let mut state = state.into_iter();
    let state = array::from_fn(|_| state.next().unwrap_or_default());
    simd::enter(level, Elementwise { rule, scales }, weight, grad, state);
}

#[inline(always)]
fn pad<C: Cell>(tail: &[C]) -> Block<C> {
    let mut block = [C::ZERO; LANES];
    block[..tail.len()].copy_from_slice(tail);
    block
}

#[inline(always)]
fn unpad<C: Cell>(block: &Block<C>, tail: &mut [C]) {
    tail.copy_from_slice(&block[..tail.len()]);
}

/// The loop of a rule with `N` states.
#[derive(Clone, Copy)]
struct Elementwise<F, R, const N: usize> {
    rule: R,
    scales: Scales<F>,
}

impl<C: Cell, R: Rule<C::Real, N>, const N: usize> Body<C> for Elementwise<C::Real, R, N> {
    const DIVIDES: bool = R::DIVIDES;

    #[inline(always)]
    fn run(self, weight: &mut [Block<C>], grad: &[Block<C>], state: [&mut [Block<C>]; MAX_STATE]) {
        let (weight, grad) = (weight.as_flattened_mut(), grad.as_flattened());
        let mut state = state.into_iter();
        let state: [&mut [C]; N] = array::from_fn(|_| state.next().unwrap_or_default().as_flattened_mut());
        // `apply` has compared the lengths; here the compiler sees it, and drops every check inside the loop.
        let len = weight.len();
        assert!(grad.len() == len && state.iter().all(|state| state.len() == len));
        for i in 0..len {
            let (w, g) = (weight[i].load() * self.scales.weight, grad[i].load() * self.scales.grad);
            let (moved, after) = self.rule.apply(w, g, array::from_fn(|k| state[k][i].load()));
            weight[i] = C::store(moved);
            for k in 0..N {
                state[k][i] = C::store(after[k].flush());
            }
        }
    }
}
