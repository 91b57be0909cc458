//! Kernels: a rule with its stages, compiled for one format, and applied to ranges of tensors.
//!
//! This is where types are erased: [`ErasedOptimizer`] is an optimizer with its hyperparameters, [`Kernel`] one step of it.
//!
//! A kernel walks its range in tiles:
//!
//! ```text
//! dense                        one tile: all of the range, in place
//! dense, gradients zeroed      4096 elements, in place; the gradient is zeroed while it lies in L2
//! not dense                    512 elements, gathered into scratch memory and scattered afterwards
//! ```

use std::array;
use std::ops::Range;

use super::block::{self, ElementUpdate};
use super::factor::Factor;
use super::format::{Dtype, Element};
use super::reduce::{BLOCK, Norm, REDUCTION_BLOCK, fold_into};
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
    /// The initial value of each state array.
    fn initial(&self) -> Vec<f64>;
    /// The kernel of step `t`, counted from 1.
    ///
    /// # Errors
    /// If a number is too large or too small for the dtype.
    fn at(&self, t: u64, dtype: Dtype, stages: Stages) -> Result<Box<dyn Kernel>, OutOfRange>;
}

/// One step of an optimizer for tensors of one format.
pub trait Kernel: Send + Sync {
    /// What a tensor must have.
    fn spec(&self) -> TensorSpec;

    /// Updates a range of the tensor.
    ///
    /// # Safety
    /// The tensor [supports](TensorSpec::supports) this kernel's spec, the range is within it, and nothing else uses those
    /// elements.
    unsafe fn run(&self, level: Level, tensor: &Tensor<'_>, range: Range<usize>, scratch: &mut Scratch);

    /// Updates a reduction block of the tensor, and returns its statistics.
    ///
    /// # Safety
    /// As [`run`](Self::run).
    unsafe fn run_with_stats(
        &self,
        level: Level,
        tensor: &Tensor<'_>,
        block: Range<usize>,
        scratch: &mut Scratch,
    ) -> [f64; STATS];
}

/// The names that a rule declares.
#[derive(Clone, Copy, Debug)]
pub struct Signature {
    /// Its hyperparameters, in the order in which [`create`] takes their values.
    pub hyperparameters: &'static [&'static str],
    /// Its state arrays.
    pub state: &'static [&'static str],
}

/// The signature of the rule of that name.
#[must_use]
pub fn signature(rule: &str) -> Option<Signature> {
    rules::find(rule, ReadSignature)
}

/// The optimizer with the rule of that name and these hyperparameters; `None` if there is no such rule, or it has another number
/// of hyperparameters.
#[must_use]
pub fn create(rule: &str, values: &[f64]) -> Option<Box<dyn ErasedOptimizer>> {
    rules::find(rule, Create(values)).flatten()
}

/// Erases the type of an optimizer.
#[must_use]
pub fn erase<const N: usize>(optimizer: impl Optimizer<N>) -> Box<dyn ErasedOptimizer> {
    Box::new(TypedOptimizer(optimizer))
}

struct ReadSignature;

impl Visitor for ReadSignature {
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

/// Elements of a tile in scratch memory: those of all operands fit into L1.
const TILE: usize = 512;

/// Elements of a dense tile that is visited again after the update: it fits into L2.
const DENSE_TILE: usize = REDUCTION_BLOCK;

/// Bytes of an operand's tile in scratch memory. Not a whole number of pages: loads and stores at equal offsets in pages wait
/// for each other.
const TILE_BYTES: usize = TILE * 8 + 5 * 64;

/// A tile of each operand that can't be used in place.
#[repr(align(64))]
pub struct Scratch([[u8; TILE_BYTES]; OPERANDS]);

impl Scratch {
    #[expect(clippy::large_stack_arrays, reason = "made at compile time, for thread-local memory")]
    pub(super) const fn new() -> Self {
        Self([[0; TILE_BYTES]; OPERANDS])
    }
}

struct TypedKernel<E: Element, R, const N: usize> {
    rule: R,
    stages: StageParams<E::Real>,
}

impl<E: Element, R: Rule<E::Real, N>, const N: usize> TypedKernel<E, R, N> {
    /// A kernel of the rule alone, or of the staged rule if there are element stages.
    fn boxed(rule: R, stages: StageParams<E::Real>) -> Box<dyn Kernel> {
        match stages.element {
            None => Box::new(Self { rule, stages }),
            Some(params) => Box::new(TypedKernel::<E, _, N> { rule: Staged { rule, params }, stages }),
        }
    }

    /// Updates a range of the tensor, tile by tile.
    ///
    /// # Safety
    /// As [`Kernel::run`].
    unsafe fn update_range(
        &self,
        level: Level,
        tensor: &Tensor<'_>,
        range: Range<usize>,
        scratch: &mut Scratch,
        stats: &mut impl StatsAccumulator<E>,
    ) {
        let tile = match (tensor.is_dense(), self.stages.zero_grads) {
            (true, false) => range.len(),
            (true, true) => DENSE_TILE,
            (false, _) => TILE,
        };
        let mut start = range.start;
        while start < range.end {
            let end = range.end.min(start + tile);
            // SAFETY: the tile is within the range, for which the caller fulfils the contract.
            unsafe { self.update_tile(level, tensor, start..end, scratch, stats) };
            start = end;
        }
    }

    /// Updates one tile.
    ///
    /// # Safety
    /// As [`Kernel::run`].
    #[inline(always)]
    unsafe fn update_tile(
        &self,
        level: Level,
        tensor: &Tensor<'_>,
        tile: Range<usize>,
        scratch: &mut Scratch,
        stats: &mut impl StatsAccumulator<E>,
    ) {
        let Scratch([weight_scratch, grad_scratch, others @ ..]) = scratch;
        let stages = &self.stages;
        // SAFETY: by the caller's contract nothing else uses the range, and by that of `Tensor::new` operands don't overlap.
        let weight = unsafe { tensor.open::<E>(WEIGHT, tile.clone(), weight_scratch) };
        // SAFETY: as above.
        let grad = unsafe { tensor.read::<E>(GRAD, tile.clone(), grad_scratch) };
        let mut state: [&mut [E]; N] = array::from_fn(|_| <&mut [E]>::default());
        let mut others = others.iter_mut();
        for (k, (slot, scratch)) in state.iter_mut().zip(&mut others).enumerate() {
            // SAFETY: as above.
            *slot = unsafe { tensor.open::<E>(STATE + k, tile.clone(), scratch) };
        }
        let states = state.each_mut().map(|state| &mut **state);
        let (rule, scales) = (self.rule, stages.scales);
        if let (Some(lerp), Some(scratch)) = (stages.average, others.next()) {
            // SAFETY: as above; the tensor has an average, which `spec` requires.
            let average = unsafe { tensor.open::<E>(AVERAGE, tile.clone(), scratch) };
            block::apply(level, ElementUpdate { rule, scales, average: lerp }, weight, grad, states, average, stats);
            // SAFETY: as above; these are the elements that were opened.
            unsafe { tensor.close(AVERAGE, tile.start, average) };
        } else {
            let update = ElementUpdate { rule, scales, average: NoAverage };
            block::apply(level, update, weight, grad, states, &mut [], stats);
        }
        // SAFETY: as above; these are the elements that were opened.
        unsafe { tensor.close(WEIGHT, tile.start, weight) };
        for (k, state) in state.iter().enumerate() {
            // SAFETY: as above.
            unsafe { tensor.close(STATE + k, tile.start, state) };
        }
        if stages.zero_grads {
            // SAFETY: as above; the gradient may be written, which `spec` requires, and is not read any more.
            unsafe { tensor.zero::<E>(GRAD, tile, grad_scratch) };
        }
    }
}

impl<E: Element, R: Rule<E::Real, N>, const N: usize> Kernel for TypedKernel<E, R, N> {
    fn spec(&self) -> TensorSpec {
        let StageParams { average, zero_grads, .. } = self.stages;
        TensorSpec { dtype: E::DTYPE, states: N, average: average.is_some(), zero_grads }
    }

    unsafe fn run(&self, level: Level, tensor: &Tensor<'_>, range: Range<usize>, scratch: &mut Scratch) {
        // SAFETY: the contract is the same.
        unsafe { self.update_range(level, tensor, range, scratch, &mut NoStats) };
    }

    unsafe fn run_with_stats(
        &self,
        level: Level,
        tensor: &Tensor<'_>,
        block: Range<usize>,
        scratch: &mut Scratch,
    ) -> [f64; STATS] {
        let mut sums = StatsSums::default();
        // SAFETY: the contract is the same.
        unsafe { self.update_range(level, tensor, block, scratch, &mut sums) };
        sums.values()
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
            // SAFETY: the contract is the same.
            Dtype::F32 => unsafe { tensor.zero::<[u8; 4]>(GRAD, tile, &mut scratch.0[GRAD]) },
            // SAFETY: as above.
            Dtype::F64 => unsafe { tensor.zero::<[u8; 8]>(GRAD, tile, &mut scratch.0[GRAD]) },
        }
    }
}

/// The factor of the elements in a norm.
#[derive(Clone, Copy, Debug)]
pub(super) enum NormFactor {
    /// Multiplied in the dtype, as a step does it; in `f64` if the dtype does not have this factor.
    InDtype(f64),
    /// Multiplied in `f64`.
    InF64(f64),
}

/// Reduces a reduction block of the gradient for a norm.
///
/// # Safety
/// The range is within the tensor, and nothing writes the gradient.
pub(super) unsafe fn norm_of_block(
    level: Level,
    tensor: &Tensor<'_>,
    block: Range<usize>,
    scratch: &mut Scratch,
    (norm, factor): (Norm, NormFactor),
) -> f64 {
    let lanes = match tensor.spec().dtype {
        // SAFETY: the contract is the same.
        Dtype::F32 => simd::run_job(level, unsafe { NormJob::<[u8; 4]>::new(tensor, block, scratch, norm, factor) }),
        // SAFETY: as above.
        Dtype::F64 => simd::run_job(level, unsafe { NormJob::<[u8; 8]>::new(tensor, block, scratch, norm, factor) }),
    };
    norm.reduce_lanes(lanes)
}

struct NormJob<'a, E: Element> {
    tensor: &'a Tensor<'a>,
    block: Range<usize>,
    scratch: &'a mut Scratch,
    norm: Norm,
    /// In the dtype, or else in `f64`.
    factor: Result<E::Real, f64>,
}

impl<E: Element> SimdJob for NormJob<'_, E> {
    type Output = [f64; BLOCK];

    #[inline(always)]
    fn run(self) -> Self::Output {
        // A loop for each norm, since the norm is the same for every element.
        match self.norm {
            Norm::One => self.scaled(|sum, x| sum + x.abs()),
            Norm::Two => self.scaled(|sum, x| sum + x * x),
            Norm::Max => self.scaled(|most: f64, x| most.max_or_nan(x.abs())),
        }
    }
}

impl<'a, E: Element> NormJob<'a, E> {
    /// # Safety
    /// That of [`norm_of_block`], for as long as this is used.
    unsafe fn new(
        tensor: &'a Tensor<'a>,
        block: Range<usize>,
        scratch: &'a mut Scratch,
        norm: Norm,
        factor: NormFactor,
    ) -> Self {
        let factor = match factor {
            NormFactor::InDtype(factor) => {
                Factor::from(factor).split().ok().filter(|(_, rest)| rest.is_none()).map(|(all, _)| all).ok_or(factor)
            }
            NormFactor::InF64(factor) => Err(factor),
        };
        Self { tensor, block, scratch, norm, factor }
    }

    #[inline(always)]
    fn scaled(self, fold: impl Fn(f64, f64) -> f64) -> [f64; BLOCK] {
        match self.factor {
            Ok(factor) => self.lanes(|sum, x: E::Real| fold(sum, (x * factor).wide())),
            Err(factor) => self.lanes(|sum, x: E::Real| fold(sum, x.wide() * factor)),
        }
    }

    #[inline(always)]
    fn lanes(self, fold: impl Fn(f64, E::Real) -> f64) -> [f64; BLOCK] {
        let mut lanes = [0.0; BLOCK];
        let tile = if self.tensor.is_dense() { REDUCTION_BLOCK } else { TILE };
        for start in self.block.clone().step_by(tile) {
            let tile = start..self.block.end.min(start + tile);
            // SAFETY: the caller of `new` fulfils the contract.
            let grad = unsafe { self.tensor.read::<E>(GRAD, tile, &mut self.scratch.0[GRAD]) };
            fold_into(&mut lanes, grad, &fold);
        }
        lanes
    }
}
