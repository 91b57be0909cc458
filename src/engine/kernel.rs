//! A rule and its stages, compiled for one format and applied to ranges of tensors.
//!
//! Optimizers of many types meet here in one: [`Update`] is what the bindings hold, a [`Kernel`] is one step of it.

use std::array;
use std::ops::Range;

use super::block::{self, Motion};
use super::format::{Cell, Dtype};
use super::reduce::{LANES, Norm, UNIT, add};
use super::simd::{self, Job, Level};
use super::stage::{Folded, NoAverage, Staged, Stages};
use super::tally::{NoTally, Sums, TALLIES, Tally};
use super::tensor::{AVERAGE, Access, GRAD, MAX_STATE, OPERANDS, STATE, Tensor, WEIGHT};
use crate::rule::{Factor, Optimizer, Real, Rule, Unfit};
use crate::rules::Visitor;

/// An optimizer with its hyperparameters, whatever its type.
pub trait Update: Send + Sync {
    /// The names of its state arrays.
    fn state(&self) -> &'static [&'static str];
    /// What each state array is filled with before the first step.
    fn initial(&self) -> Vec<f64>;
    /// Step `t`, counted from 1.
    ///
    /// # Errors
    /// If a number is too large or too small for the dtype.
    fn at(&self, t: u64, dtype: Dtype, stages: Stages) -> Result<Box<dyn Kernel>, Unfit>;
}

/// One step of an optimizer for tensors of one format.
pub trait Kernel: Send + Sync {
    /// What a tensor must have to be moved.
    fn access(&self) -> Access;

    /// Moves a range of the tensor.
    ///
    /// # Safety
    /// The tensor [allows](Access::allows) this kernel's access, the range is within it, and nothing else uses those elements.
    unsafe fn run(&self, level: Level, tensor: &Tensor<'_>, range: Range<usize>, scratch: &mut Scratch);

    /// Moves a unit of the tensor, and returns what that did.
    ///
    /// # Safety
    /// As [`run`](Self::run).
    unsafe fn run_unit_with_stats(
        &self,
        level: Level,
        tensor: &Tensor<'_>,
        unit: Range<usize>,
        scratch: &mut Scratch,
    ) -> [f64; TALLIES];
}

/// An optimizer of one type.
struct Typed<O, const N: usize>(O);

impl<const N: usize, O: Optimizer<N>> Update for Typed<O, N> {
    fn state(&self) -> &'static [&'static str] {
        const {
            assert!(N <= MAX_STATE);
            &O::STATE
        }
    }

    fn initial(&self) -> Vec<f64> {
        self.0.initial().to_vec()
    }

    fn at(&self, t: u64, dtype: Dtype, stages: Stages) -> Result<Box<dyn Kernel>, Unfit> {
        match dtype {
            Dtype::F32 => {
                self.0.check::<f32>(t)?;
                Ok(Step::<[u8; 4], _, N>::boxed(self.0.at::<f32>(t), stages.fold()?))
            }
            Dtype::F64 => {
                self.0.check::<f64>(t)?;
                Ok(Step::<[u8; 8], _, N>::boxed(self.0.at::<f64>(t), stages.fold()?))
            }
        }
    }
}

/// The names that a registered rule is known by.
#[derive(Clone, Copy, Debug)]
pub struct Signature {
    /// Its hyperparameters, in the order of their values.
    pub hyperparameters: &'static [&'static str],
    /// Its state arrays.
    pub state: &'static [&'static str],
}

/// Reads a registered rule's [`Signature`].
#[derive(Clone, Copy, Debug)]
pub struct Describe;

impl Visitor for Describe {
    type Output = Signature;

    fn visit<const N: usize, O: Optimizer<N>>(self) -> Signature {
        Signature { hyperparameters: O::NAMES, state: const { &O::STATE } }
    }
}

/// Makes a registered rule from the values of its hyperparameters; `None` if their number is wrong.
#[derive(Clone, Copy, Debug)]
pub struct Make<'a>(pub &'a [f64]);

impl Visitor for Make<'_> {
    type Output = Option<Box<dyn Update>>;

    fn visit<const N: usize, O: Optimizer<N>>(self) -> Self::Output {
        O::from_values(self.0).map(erased)
    }
}

/// An optimizer, whatever its type.
#[must_use]
pub fn erased<const N: usize>(optimizer: impl Optimizer<N>) -> Box<dyn Update> {
    Box::new(Typed(optimizer))
}

/// Elements to a tile of scratch: its operands lie in L1 together.
const TILE: usize = 512;

/// Elements to a tile of what lies dense in memory, and is looked at again when the rule has moved it: it lies in L2.
const DENSE_TILE: usize = UNIT;

/// Bytes to an operand's tile of scratch. More than pages: loads and stores at equal offsets in pages wait for each other.
const TILE_BYTES: usize = TILE * 8 + 5 * 64;

/// A tile of each operand, for those that a step can't use where they are.
#[repr(align(64))]
pub struct Scratch([[u8; TILE_BYTES]; OPERANDS]);

impl Scratch {
    #[expect(clippy::large_stack_arrays, reason = "made at compile time, for thread-local memory")]
    pub(super) const fn new() -> Self {
        Self([[0; TILE_BYTES]; OPERANDS])
    }
}

struct Step<C: Cell, R, const N: usize> {
    rule: R,
    stages: Folded<C::Real>,
}

impl<C: Cell, R: Rule<C::Real, N>, const N: usize> Step<C, R, N> {
    /// The step, of the rule alone or with the stages around it.
    fn boxed(rule: R, stages: Folded<C::Real>) -> Box<dyn Kernel> {
        match stages.around {
            None => Box::new(Self { rule, stages }),
            Some(around) => Box::new(Step::<C, _, N> { rule: Staged { rule, around }, stages }),
        }
    }
}

impl<C: Cell, R: Rule<C::Real, N>, const N: usize> Kernel for Step<C, R, N> {
    fn access(&self) -> Access {
        let Folded { average, zero_grads, .. } = self.stages;
        Access { dtype: C::DTYPE, states: N, average: average.is_some(), zero_grads }
    }

    unsafe fn run(&self, level: Level, tensor: &Tensor<'_>, range: Range<usize>, scratch: &mut Scratch) {
        // SAFETY: as the caller promised.
        unsafe { self.move_range(level, tensor, range, scratch, &mut NoTally) };
    }

    unsafe fn run_unit_with_stats(
        &self,
        level: Level,
        tensor: &Tensor<'_>,
        unit: Range<usize>,
        scratch: &mut Scratch,
    ) -> [f64; TALLIES] {
        let mut sums = Sums::default();
        // SAFETY: as the caller promised.
        unsafe { self.move_range(level, tensor, unit, scratch, &mut sums) };
        sums.values()
    }
}

impl<C: Cell, R: Rule<C::Real, N>, const N: usize> Step<C, R, N> {
    /// Moves a range of the tensor tile by tile.
    ///
    /// # Safety
    /// As [`Kernel::run`].
    unsafe fn move_range(
        &self,
        level: Level,
        tensor: &Tensor<'_>,
        range: Range<usize>,
        scratch: &mut Scratch,
        tally: &mut impl Tally<C>,
    ) {
        let tile = match (tensor.is_dense(), self.stages.zero_grads) {
            (true, false) => range.len(),
            (true, true) => DENSE_TILE,
            (false, _) => TILE,
        };
        let mut start = range.start;
        while start < range.end {
            let end = range.end.min(start + tile);
            // SAFETY: the tile is within the range, of which the caller promised all that is asked for.
            unsafe { self.move_tile(level, tensor, start..end, scratch, tally) };
            start = end;
        }
    }

    /// Moves one tile, or a range of any length where nothing needs scratch.
    ///
    /// # Safety
    /// As [`Kernel::run`].
    #[inline(always)]
    unsafe fn move_tile(
        &self,
        level: Level,
        tensor: &Tensor<'_>,
        tile: Range<usize>,
        scratch: &mut Scratch,
        tally: &mut impl Tally<C>,
    ) {
        let Scratch([weight_scratch, grad_scratch, others @ ..]) = scratch;
        let stages = &self.stages;
        // SAFETY: by the caller's promise this piece alone uses the range, and by that of `Tensor::new` operands don't overlap.
        let weight = unsafe { tensor.open::<C>(WEIGHT, tile.clone(), weight_scratch) };
        // SAFETY: as above.
        let grad = unsafe { tensor.read::<C>(GRAD, tile.clone(), grad_scratch) };
        let mut state: [&mut [C]; N] = array::from_fn(|_| <&mut [C]>::default());
        let mut others = others.iter_mut();
        for (k, (slot, scratch)) in state.iter_mut().zip(&mut others).enumerate() {
            // SAFETY: as above.
            *slot = unsafe { tensor.open::<C>(STATE + k, tile.clone(), scratch) };
        }
        let states = state.each_mut().map(|state| &mut **state);
        let (rule, scales) = (self.rule, stages.scales);
        if let (Some(blend), Some(scratch)) = (stages.average, others.next()) {
            // SAFETY: as above; the tensor has an average, as `access` asks.
            let average = unsafe { tensor.open::<C>(AVERAGE, tile.clone(), scratch) };
            block::apply(level, Motion { rule, scales, blend }, weight, grad, states, average, tally);
            // SAFETY: as above; the cells are those that were opened.
            unsafe { tensor.close(AVERAGE, tile.start, average) };
        } else {
            block::apply(level, Motion { rule, scales, blend: NoAverage }, weight, grad, states, &mut [], tally);
        }
        // SAFETY: as above; the cells are those that were opened.
        unsafe { tensor.close(WEIGHT, tile.start, weight) };
        for (k, state) in state.iter().enumerate() {
            // SAFETY: as above.
            unsafe { tensor.close(STATE + k, tile.start, state) };
        }
        if stages.zero_grads {
            // SAFETY: as above; the gradient may be written, as `access` asks, and is not read any more.
            unsafe { tensor.zero::<C>(GRAD, tile, grad_scratch) };
        }
    }
}

/// Sets the gradient to zero.
///
/// # Safety
/// The gradient may be written, and nothing else uses it.
pub(super) unsafe fn zero_grad(tensor: &Tensor<'_>, scratch: &mut Scratch) {
    for start in (0..tensor.len()).step_by(TILE) {
        let tile = start..tensor.len().min(start + TILE);
        match tensor.access().dtype {
            // SAFETY: as promised.
            Dtype::F32 => unsafe { tensor.zero::<[u8; 4]>(GRAD, tile, &mut scratch.0[GRAD]) },
            // SAFETY: as above.
            Dtype::F64 => unsafe { tensor.zero::<[u8; 8]>(GRAD, tile, &mut scratch.0[GRAD]) },
        }
    }
}

/// How an element of a gradient enters a norm.
#[derive(Clone, Copy, Debug)]
pub(super) enum Entering {
    /// Multiplied by a factor in its dtype, as the step does it, or in `f64` where that has no such factor.
    Scaled(f64),
    /// Multiplied in `f64`.
    Widened(f64),
}

/// The sum over a unit of the gradient that its norm is made of.
///
/// # Safety
/// The range is a unit of the tensor, and nothing writes the gradient.
pub(super) unsafe fn norm_of_unit(
    level: Level,
    tensor: &Tensor<'_>,
    range: Range<usize>,
    scratch: &mut Scratch,
    (norm, entering): (Norm, Entering),
) -> f64 {
    let lanes = match tensor.access().dtype {
        // SAFETY: as the caller promised.
        Dtype::F32 => simd::run(level, unsafe { NormOf::<[u8; 4]>::new(tensor, range, scratch, norm, entering) }),
        // SAFETY: as the caller promised.
        Dtype::F64 => simd::run(level, unsafe { NormOf::<[u8; 8]>::new(tensor, range, scratch, norm, entering) }),
    };
    norm.joined(lanes)
}

/// A unit of a gradient to be summed.
struct NormOf<'a, C: Cell> {
    tensor: &'a Tensor<'a>,
    range: Range<usize>,
    scratch: &'a mut Scratch,
    norm: Norm,
    /// The factor, in the dtype or else in `f64`.
    scale: Result<C::Real, f64>,
}

impl<C: Cell> Job for NormOf<'_, C> {
    type Output = [f64; LANES];

    #[inline(always)]
    fn run(self) -> Self::Output {
        // The norm is the same for every element: a loop for each.
        match self.norm {
            Norm::One => self.lanes(|sum, x| sum + x.abs()),
            Norm::Two => self.lanes(|sum, x| sum + x * x),
            Norm::Max => self.lanes(|most: f64, x| most.max_or_nan(x.abs())),
        }
    }
}

impl<'a, C: Cell> NormOf<'a, C> {
    /// # Safety
    /// That of [`norm_of_unit`], for as long as this is used.
    unsafe fn new(
        tensor: &'a Tensor<'a>,
        range: Range<usize>,
        scratch: &'a mut Scratch,
        norm: Norm,
        entering: Entering,
    ) -> Self {
        let scale = match entering {
            Entering::Scaled(scale) => {
                Factor::from(scale).split().ok().filter(|(_, rest)| rest.is_none()).map(|(all, _)| all).ok_or(scale)
            }
            Entering::Widened(scale) => Err(scale),
        };
        Self { tensor, range, scratch, norm, scale }
    }

    #[inline(always)]
    fn lanes(self, fold: impl Fn(f64, f64) -> f64) -> [f64; LANES] {
        match self.scale {
            Ok(scale) => self.sums(|sum, x: C::Real| fold(sum, (x * scale).wide())),
            Err(scale) => self.sums(|sum, x: C::Real| fold(sum, x.wide() * scale)),
        }
    }

    #[inline(always)]
    fn sums(self, fold: impl Fn(f64, C::Real) -> f64) -> [f64; LANES] {
        let mut lanes = [0.0; LANES];
        let tile = if self.tensor.is_dense() { UNIT } else { TILE };
        for start in self.range.clone().step_by(tile) {
            let tile = start..self.range.end.min(start + tile);
            // SAFETY: as `new` was promised.
            let grad = unsafe { self.tensor.read::<C>(GRAD, tile, &mut self.scratch.0[GRAD]) };
            add(&mut lanes, grad, &fold);
        }
        lanes
    }
}
