//! A rule and its stages, compiled for one format and applied to ranges of tensors.
//!
//! Optimizers of many types meet here in one: [`ErasedOptimizer`] is what the bindings hold, a [`Kernel`] is one step of it.

use std::array;
use std::ops::Range;

use super::block::{self, ElementUpdate};
use super::factor::Factor;
use super::format::{Dtype, Element};
use super::reduce::{BLOCK, Norm, REDUCTION_BLOCK, add};
use super::simd::{self, Level, SimdJob};
use super::stage::{NoAverage, StageParams, Staged, Stages};
use super::stats::{NoStats, STATS, StatsAccumulator, StatsSums};
use super::tensor::{AVERAGE, GRAD, MAX_STATE, OPERANDS, STATE, Tensor, TensorSpec, WEIGHT};
use crate::rule::{Optimizer, OutOfRange, Real, Rule};
use crate::rules::{self, Visitor};

/// An optimizer with its hyperparameters, whatever its type.
pub trait ErasedOptimizer: Send + Sync {
    /// The names of its state arrays.
    fn state(&self) -> &'static [&'static str];
    /// What each state array is filled with before the first step.
    fn initial(&self) -> Vec<f64>;
    /// The kernel of step `t`, counted from 1.
    ///
    /// # Errors
    /// If a number is too large or too small for the dtype.
    fn at(&self, t: u64, dtype: Dtype, stages: Stages) -> Result<Box<dyn Kernel>, OutOfRange>;
}

/// One step of an optimizer for tensors of one format.
pub trait Kernel: Send + Sync {
    /// What a tensor must have to be moved.
    fn spec(&self) -> TensorSpec;

    /// Moves a range of the tensor.
    ///
    /// # Safety
    /// The tensor [supports](TensorSpec::allows) this kernel's spec, the range is within it, and nothing else uses those elements.
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
    ) -> [f64; STATS];
}

/// An optimizer of one type.
struct TypedOptimizer<O, const N: usize>(O);

impl<const N: usize, O: Optimizer<N>> ErasedOptimizer for TypedOptimizer<O, N> {
    fn state(&self) -> &'static [&'static str] {
        const {
            assert!(N <= MAX_STATE);
            &O::STATE
        }
    }

    fn initial(&self) -> Vec<f64> {
        self.0.initial().to_vec()
    }

    fn at(&self, t: u64, dtype: Dtype, stages: Stages) -> Result<Box<dyn Kernel>, OutOfRange> {
        match dtype {
            Dtype::F32 => {
                self.0.check::<f32>(t)?;
                Ok(TypedKernel::<[u8; 4], _, N>::boxed(self.0.at::<f32>(t), stages.fold()?))
            }
            Dtype::F64 => {
                self.0.check::<f64>(t)?;
                Ok(TypedKernel::<[u8; 8], _, N>::boxed(self.0.at::<f64>(t), stages.fold()?))
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

/// The [`Signature`] of the rule of that name.
#[must_use]
pub fn signature(rule: &str) -> Option<Signature> {
    rules::find(rule, Describe)
}

/// The optimizer with the rule of that name and these values of its hyperparameters; `None` if there is no such rule, or it has
/// another number of hyperparameters.
#[must_use]
pub fn create(rule: &str, values: &[f64]) -> Option<Box<dyn ErasedOptimizer>> {
    rules::find(rule, Create(values)).flatten()
}

struct Describe;

impl Visitor for Describe {
    type Output = Signature;

    fn visit<const N: usize, O: Optimizer<N>>(self) -> Signature {
        Signature { hyperparameters: O::NAMES, state: const { &O::STATE } }
    }
}

struct Create<'a>(&'a [f64]);

impl Visitor for Create<'_> {
    type Output = Option<Box<dyn ErasedOptimizer>>;

    fn visit<const N: usize, O: Optimizer<N>>(self) -> Self::Output {
        O::from_values(self.0).map(erase)
    }
}

/// An optimizer, whatever its type.
#[must_use]
pub fn erase<const N: usize>(optimizer: impl Optimizer<N>) -> Box<dyn ErasedOptimizer> {
    Box::new(TypedOptimizer(optimizer))
}

/// Elements to a tile of scratch: its operands lie in L1 together.
const TILE: usize = 512;

/// Elements to a tile of what lies dense in memory, and is looked at again when the rule has moved it: it lies in L2.
const DENSE_TILE: usize = REDUCTION_BLOCK;

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

struct TypedKernel<C: Element, R, const N: usize> {
    rule: R,
    stages: StageParams<C::Real>,
}

impl<C: Element, R: Rule<C::Real, N>, const N: usize> TypedKernel<C, R, N> {
    /// The step, of the rule alone or with the stages around it.
    fn boxed(rule: R, stages: StageParams<C::Real>) -> Box<dyn Kernel> {
        match stages.around {
            None => Box::new(Self { rule, stages }),
            Some(around) => Box::new(TypedKernel::<C, _, N> { rule: Staged { rule, around }, stages }),
        }
    }
}

impl<C: Element, R: Rule<C::Real, N>, const N: usize> Kernel for TypedKernel<C, R, N> {
    fn spec(&self) -> TensorSpec {
        let StageParams { average, zero_grads, .. } = self.stages;
        TensorSpec { dtype: C::DTYPE, states: N, average: average.is_some(), zero_grads }
    }

    unsafe fn run(&self, level: Level, tensor: &Tensor<'_>, range: Range<usize>, scratch: &mut Scratch) {
        // SAFETY: as the caller promised.
        unsafe { self.move_range(level, tensor, range, scratch, &mut NoStats) };
    }

    unsafe fn run_unit_with_stats(
        &self,
        level: Level,
        tensor: &Tensor<'_>,
        unit: Range<usize>,
        scratch: &mut Scratch,
    ) -> [f64; STATS] {
        let mut sums = StatsSums::default();
        // SAFETY: as the caller promised.
        unsafe { self.move_range(level, tensor, unit, scratch, &mut sums) };
        sums.values()
    }
}

impl<C: Element, R: Rule<C::Real, N>, const N: usize> TypedKernel<C, R, N> {
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
        stats: &mut impl StatsAccumulator<C>,
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
            unsafe { self.move_tile(level, tensor, start..end, scratch, stats) };
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
        stats: &mut impl StatsAccumulator<C>,
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
            block::apply(level, ElementUpdate { rule, scales, blend }, weight, grad, states, average, stats);
            // SAFETY: as above; the cells are those that were opened.
            unsafe { tensor.close(AVERAGE, tile.start, average) };
        } else {
            block::apply(level, ElementUpdate { rule, scales, blend: NoAverage }, weight, grad, states, &mut [], stats);
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
        match tensor.spec().dtype {
            // SAFETY: as promised.
            Dtype::F32 => unsafe { tensor.zero::<[u8; 4]>(GRAD, tile, &mut scratch.0[GRAD]) },
            // SAFETY: as above.
            Dtype::F64 => unsafe { tensor.zero::<[u8; 8]>(GRAD, tile, &mut scratch.0[GRAD]) },
        }
    }
}

/// How an element of a gradient enters a norm.
#[derive(Clone, Copy, Debug)]
pub(super) enum NormScaling {
    /// Multiplied by a factor in its dtype, as the step does it, or in `f64` where that has no such factor.
    InDtype(f64),
    /// Multiplied in `f64`.
    InF64(f64),
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
    (norm, entering): (Norm, NormScaling),
) -> f64 {
    let lanes = match tensor.spec().dtype {
        // SAFETY: as the caller promised.
        Dtype::F32 => simd::run(level, unsafe { NormJob::<[u8; 4]>::new(tensor, range, scratch, norm, entering) }),
        // SAFETY: as the caller promised.
        Dtype::F64 => simd::run(level, unsafe { NormJob::<[u8; 8]>::new(tensor, range, scratch, norm, entering) }),
    };
    norm.joined(lanes)
}

/// A unit of a gradient to be summed.
struct NormJob<'a, C: Element> {
    tensor: &'a Tensor<'a>,
    range: Range<usize>,
    scratch: &'a mut Scratch,
    norm: Norm,
    /// The factor, in the dtype or else in `f64`.
    scale: Result<C::Real, f64>,
}

impl<C: Element> SimdJob for NormJob<'_, C> {
    type Output = [f64; BLOCK];

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

impl<'a, C: Element> NormJob<'a, C> {
    /// # Safety
    /// That of [`norm_of_unit`], for as long as this is used.
    unsafe fn new(
        tensor: &'a Tensor<'a>,
        range: Range<usize>,
        scratch: &'a mut Scratch,
        norm: Norm,
        entering: NormScaling,
    ) -> Self {
        let scale = match entering {
            NormScaling::InDtype(scale) => {
                Factor::from(scale).split().ok().filter(|(_, rest)| rest.is_none()).map(|(all, _)| all).ok_or(scale)
            }
            NormScaling::InF64(scale) => Err(scale),
        };
        Self { tensor, range, scratch, norm, scale }
    }

    #[inline(always)]
    fn lanes(self, fold: impl Fn(f64, f64) -> f64) -> [f64; BLOCK] {
        match self.scale {
            Ok(scale) => self.sums(|sum, x: C::Real| fold(sum, (x * scale).wide())),
            Err(scale) => self.sums(|sum, x: C::Real| fold(sum, x.wide() * scale)),
        }
    }

    #[inline(always)]
    fn sums(self, fold: impl Fn(f64, C::Real) -> f64) -> [f64; BLOCK] {
        let mut lanes = [0.0; BLOCK];
        let tile = if self.tensor.is_dense() { REDUCTION_BLOCK } else { TILE };
        for start in self.range.clone().step_by(tile) {
            let tile = start..self.range.end.min(start + tile);
            // SAFETY: as `new` was promised.
            let grad = unsafe { self.tensor.read::<C>(GRAD, tile, &mut self.scratch.0[GRAD]) };
            add(&mut lanes, grad, &fold);
        }
        lanes
    }
}
