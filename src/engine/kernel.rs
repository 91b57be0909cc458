//! A rule and its stages, compiled for one format and applied to ranges of tensors.
//!
//! Optimizers of many types meet here in one: [`Update`] is what the bindings hold, a [`Kernel`] is one step of it.

use std::array;
use std::ops::Range;

use super::block;
use super::format::{Cell, Dtype};
use super::simd::{self, Job, Level};
use super::stage::{Folded, Stages};
use super::tensor::{GRAD, MAX_STATE, OPERANDS, STATE, Tensor, WEIGHT};
use crate::rule::{Optimizer, Rule};
use crate::rules::Visitor;

/// An optimizer with its hyperparameters, whatever its type.
pub trait Update: Send + Sync {
    /// The names of its state arrays.
    fn state(&self) -> &'static [&'static str];
    /// What each state array is filled with before the first step.
    fn initial(&self) -> Vec<f64>;
    /// Step `t`, counted from 1.
    fn at(&self, t: u64, dtype: Dtype, stages: Stages) -> Box<dyn Kernel>;
}

/// One step of an optimizer for tensors of one format.
pub trait Kernel: Send + Sync {
    /// The format and the number of states that its tensors have.
    fn operands(&self) -> (Dtype, usize);

    /// Moves a range of the tensor.
    ///
    /// # Safety
    /// The tensor has this kernel's [operands](Self::operands), the range is within it, and nothing else uses those elements.
    unsafe fn run(&self, level: Level, tensor: &Tensor<'_>, range: Range<usize>, scratch: &mut Scratch);
}

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

    fn at(&self, t: u64, dtype: Dtype, stages: Stages) -> Box<dyn Kernel> {
        match dtype {
            Dtype::F32 => Box::new(Step::<[u8; 4], _, N> { rule: self.0.at::<f32>(t), stages: stages.fold() }),
            Dtype::F64 => Box::new(Step::<[u8; 8], _, N> { rule: self.0.at::<f64>(t), stages: stages.fold() }),
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
        O::from_values(self.0).map(|optimizer| Box::new(Typed(optimizer)) as _)
    }
}

/// Elements to a tile: its operands lie in L1 together.
const TILE: usize = 512;

/// Bytes to an operand's tile of scratch. More than a page: loads and stores at equal offsets in pages wait for each other.
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

impl<C: Cell, R: Rule<C::Real, N>, const N: usize> Kernel for Step<C, R, N> {
    fn operands(&self) -> (Dtype, usize) {
        (C::DTYPE, N)
    }

    unsafe fn run(&self, level: Level, tensor: &Tensor<'_>, range: Range<usize>, scratch: &mut Scratch) {
        simd::run(level, Piece { step: self, level, tensor, range, scratch });
    }
}

/// A range of one tensor to be moved. Whoever makes one keeps to the contract of [`Kernel::run`].
struct Piece<'a, C: Cell, R, const N: usize> {
    step: &'a Step<C, R, N>,
    level: Level,
    tensor: &'a Tensor<'a>,
    range: Range<usize>,
    scratch: &'a mut Scratch,
}

impl<C: Cell, R: Rule<C::Real, N>, const N: usize> Job for Piece<'_, C, R, N> {
    #[inline(always)]
    fn run(self) {
        let Self { step, level, tensor, range, scratch } = self;
        if tensor.is_dense() && !step.stages.needs_tiles() {
            return step.move_tile(level, tensor, range, scratch);
        }
        let mut start = range.start;
        while start < range.end {
            let end = range.end.min(start + TILE);
            step.move_tile(level, tensor, start..end, scratch);
            start = end;
        }
    }
}

impl<C: Cell, R: Rule<C::Real, N>, const N: usize> Step<C, R, N> {
    /// Stages and rule on one tile, or on a range of any length where nothing needs scratch.
    #[inline(always)]
    fn move_tile(&self, level: Level, tensor: &Tensor<'_>, tile: Range<usize>, Scratch(scratch): &mut Scratch) {
        let [weight_scratch, grad_scratch, state_scratch @ ..] = scratch;
        // SAFETY: by the contract of `Kernel::run` this piece alone uses the range, and operands don't overlap.
        let weight = unsafe { tensor.open::<C>(WEIGHT, tile.clone(), weight_scratch) };
        let (grad, scales) = if self.stages.needs_tiles() {
            // SAFETY: as above.
            let grad = unsafe { tensor.copy::<C>(GRAD, tile.clone(), grad_scratch) };
            let scales = self.stages.prepare(grad, weight);
            (&*grad, scales)
        } else {
            // SAFETY: as above.
            (unsafe { tensor.read::<C>(GRAD, tile.clone(), grad_scratch) }, self.stages.scales)
        };
        let mut state: [&mut [C]; N] = array::from_fn(|_| <&mut [C]>::default());
        for (k, (slot, scratch)) in state.iter_mut().zip(state_scratch).enumerate() {
            // SAFETY: as above.
            *slot = unsafe { tensor.open::<C>(STATE + k, tile.clone(), scratch) };
        }
        block::apply(level, self.rule, scales, weight, grad, state.each_mut().map(|state| &mut **state));
        // SAFETY: as above; the cells are those that were opened.
        unsafe { tensor.close(WEIGHT, tile.start, weight) };
        for (k, state) in state.iter().enumerate() {
            // SAFETY: as above.
            unsafe { tensor.close(STATE + k, tile.start, state) };
        }
    }
}
