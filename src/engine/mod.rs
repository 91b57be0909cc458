//! The engine: applies rules to arrays.
//!
//! A [`Batch`] is one step: tensors, each with the kernel that moves it. [`Batch::run`] is the only entry. It lays all tensors
//! end to end, cuts that line into chunks, and deals the chunks to threads; a chunk is a range of one large tensor or
//! holds many small ones. Where the cuts fall has no influence on the result.

mod average;
mod block;
mod factor;
mod float_mode;
mod format;
mod kernel;
mod overlap;
pub mod parallel;
mod reduce;
pub mod simd;
mod stage;
mod stats;
mod tensor;

use std::cell::RefCell;
use std::cmp::Ordering;
use std::num::NonZeroUsize;
use std::ops::Range;

pub use average::Average;
pub use factor::Factor;
pub use float_mode::DefaultMode;
pub use format::Dtype;
pub use kernel::{ErasedOptimizer, Kernel, Signature, create, erase, signature};
pub use overlap::{Overlap, OverlapChecker, Span, SpanSet};
pub use reduce::{BLOCK, Norm};
pub use stage::{Decay, Stages};
pub use stats::Stats;
pub use tensor::{AVERAGE, Axis, GRAD, Layout, MAX_STATE, Native, OPERANDS, STATE, Tensor, TensorSpec, WEIGHT};

use kernel::{NormScaling, Scratch};
use reduce::{BlockSums, REDUCTION_BLOCK};
use stats::STATS;

/// The tensors of one step. Kept from step to step, it allocates nothing.
#[derive(Default)]
pub struct Batch<'a> {
    /// What the tensors of each kernel have.
    slots: Vec<TensorSpec>,
    entries: Vec<BatchTensor<'a>>,
    total: usize,
    units: usize,
    norms: BlockSums<1>,
    tallies: BlockSums<STATS>,
}

/// Which units of gradients a step looks at: those whose number in the tensor and the tensor's number together come to the
/// phase, by the stride.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// One unit of so many is in it.
    pub stride: NonZeroUsize,
    /// Which one.
    pub phase: usize,
}

impl Sample {
    /// The numbers of those units that begin within a range of a tensor.
    fn units(self, tensor: usize, range: Range<usize>) -> impl Iterator<Item = usize> {
        let (stride, units) =
            (self.stride.get(), range.start.div_ceil(REDUCTION_BLOCK)..range.end.div_ceil(REDUCTION_BLOCK));
        let to_phase = (self.phase % stride + stride - (tensor + units.start) % stride) % stride;
        (units.start + to_phase..units.end).step_by(stride)
    }
}

struct BatchTensor<'a> {
    tensor: Tensor<'a>,
    /// What the tensor is known by to a sample.
    number: usize,
    /// The number of the kernel that moves it.
    slot: usize,
    /// Where the tensor begins on the line of all elements.
    start: usize,
    /// Its first unit.
    unit: usize,
}

impl<'a> Batch<'a> {
    /// Forgets the tensors.
    pub fn clear(&mut self) {
        self.slots.clear();
        self.entries.clear();
        self.total = 0;
        self.units = 0;
    }

    /// Adds a slot for a kernel that tensors with this access are to be moved by, and returns its number.
    pub fn add_kernel(&mut self, spec: TensorSpec) -> usize {
        self.slots.push(spec);
        self.slots.len() - 1
    }

    /// Adds a tensor to be moved by the kernel of a slot. A [`Sample`] knows it by its number.
    ///
    /// # Panics
    /// If there is no such slot, or it is for another spec.
    pub fn push(&mut self, tensor: Tensor<'a>, slot: usize, number: usize) {
        assert_eq!(self.slots[slot], tensor.spec());
        let (start, unit) = (self.total, self.units);
        self.total += tensor.len;
        self.units += tensor.len.div_ceil(REDUCTION_BLOCK);
        self.entries.push(BatchTensor { tensor, number, slot, start, unit });
    }

    /// The tensors, in the order in which they were added. Their lengths stay as they are.
    pub fn tensors_mut(&mut self) -> impl ExactSizeIterator<Item = &mut Tensor<'a>> {
        self.entries.iter_mut().map(|entry| &mut entry.tensor)
    }

    /// How many tensors there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no tensor.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many units of a fixed number of elements the tensors are cut into, for norms and statistics.
    #[must_use]
    pub fn reduction_blocks(&self) -> usize {
        self.units
    }

    /// How many elements the step moves.
    #[must_use]
    pub fn total(&self) -> usize {
        self.total
    }

    /// Takes the step: moves every tensor once, by the kernels of the slots. The squares of a sample of the gradients can be had
    /// [afterwards](Self::sampled_squares).
    ///
    /// # Panics
    /// If there is not a kernel for each slot, or one needs more than its tensors have.
    pub fn run(&mut self, kernels: &[Box<dyn Kernel>], sample: Option<Sample>) {
        self.begin(kernels, sample);
        let grain = if sample.is_some() { REDUCTION_BLOCK } else { BLOCK };
        let level = simd::current();
        let batch = &*self;
        parallel::share(batch.total, &|line| {
            SCRATCH.with_borrow_mut(|scratch| {
                batch.for_each_piece(line, grain, |entry, piece| {
                    batch.observe(level, entry, &piece, scratch, sample);
                    // SAFETY: `begin` and `push` saw that kernel and tensor fit, and no two pieces meet.
                    unsafe { kernels[entry.slot].run(level, &entry.tensor, piece, scratch) };
                });
            });
        });
    }

    /// [Takes the step](Self::run), and returns what it did to each tensor.
    ///
    /// # Panics
    /// As `run`.
    pub fn run_with_stats(&mut self, kernels: &[Box<dyn Kernel>], sample: Option<Sample>) -> Vec<Stats> {
        self.begin(kernels, sample);
        self.tallies.resize(self.units);
        let level = simd::current();
        let batch = &*self;
        parallel::share(batch.total, &|line| {
            SCRATCH.with_borrow_mut(|scratch| {
                batch.for_each_unit(line, |entry, unit, piece| {
                    batch.observe(level, entry, &piece, scratch, sample);
                    let (kernel, tensor) = (&kernels[entry.slot], &entry.tensor);
                    // SAFETY: as in `run`.
                    let values = unsafe { kernel.run_unit_with_stats(level, tensor, piece, scratch) };
                    batch.tallies.set(unit, values);
                });
            });
        });
        let of_units = |entry: &BatchTensor<'_>| {
            let units = entry.unit..entry.unit + entry.tensor.len.div_ceil(REDUCTION_BLOCK);
            Stats::of_units(units.map(|unit| self.tallies.get(unit)))
        };
        self.entries.iter().map(of_units).collect()
    }

    /// The norm of all gradients together, each element first multiplied by a factor. It is that of the numbers also where their
    /// squares, their sum, or their products with the factor are out of range.
    pub fn grad_norm(&mut self, norm: Norm, scale: Factor) -> Factor {
        let value = scale.value();
        let sum = self.sum_of_units(norm, NormScaling::InDtype(value));
        let has_wide = self.slots.iter().any(|slot| slot.dtype == Dtype::F64);
        let plain = Factor::from(norm.of_sum(sum));
        if norm.is_certain(sum, has_wide) && (value.is_normal() || value == 0.0) {
            return plain;
        }
        let most = self.sum_of_units(Norm::Max, NormScaling::InF64(1.0));
        if most == 0.0 || !most.is_finite() {
            return most.into();
        }
        // With the largest at 1, squares don't overflow, and those that underflow don't count.
        let shift = Factor::new(1.0, Factor::from(most).exponent().max(-1000));
        let sum = self.sum_of_units(norm, NormScaling::InF64(Factor::ONE.over(shift).value()));
        Factor::from(norm.of_sum(sum)).times(shift).times(scale)
    }

    /// The sum over all units of gradients that a norm is made of.
    fn sum_of_units(&mut self, norm: Norm, entering: NormScaling) -> f64 {
        self.norms.resize(self.units);
        let level = simd::current();
        let batch = &*self;
        parallel::share(batch.total, &|line| {
            SCRATCH.with_borrow_mut(|scratch| {
                batch.for_each_unit(line, |entry, unit, piece| {
                    // SAFETY: gradients are not written meanwhile.
                    let sum = unsafe { kernel::norm_of_unit(level, &entry.tensor, piece, scratch, (norm, entering)) };
                    batch.norms.set(unit, [sum]);
                });
            });
        });
        norm.total((0..self.units).map(|unit| self.norms.get(unit)[0]))
    }

    /// The sum of squares of the gradients in the units that the last step looked at.
    #[must_use]
    pub fn sampled_squares(&self, sample: Sample) -> f64 {
        let units = |entry: &BatchTensor<'_>| {
            let first = entry.unit;
            sample.units(entry.number, 0..entry.tensor.len).map(move |unit| first + unit)
        };
        self.entries.iter().flat_map(units).map(|unit| self.norms.get(unit)[0]).sum()
    }

    /// The largest number that elements of every tensor can have.
    #[must_use]
    pub fn largest_of_dtypes(&self) -> f64 {
        self.slots.iter().map(|slot| slot.dtype.largest()).fold(f64::MAX, f64::min)
    }

    /// The number of the first tensor whose gradient has an element that is infinite or NaN when it is multiplied by a factor.
    #[must_use]
    pub fn first_nonfinite(&self, scale: Factor) -> Option<usize> {
        let level = simd::current();
        let mut first = None;
        SCRATCH.with_borrow_mut(|scratch| {
            for (i, BatchTensor { tensor, .. }) in self.entries.iter().enumerate() {
                let mut units = (0..tensor.len)
                    .step_by(REDUCTION_BLOCK)
                    .map(|start| start..tensor.len.min(start + REDUCTION_BLOCK));
                let largest = tensor.spec().dtype.largest();
                let entering = NormScaling::InDtype(scale.value());
                let bad = |unit| {
                    // SAFETY: nothing writes gradients meanwhile.
                    let most = unsafe { kernel::norm_of_unit(level, tensor, unit, scratch, (Norm::Max, entering)) };
                    // NaN is not.
                    !matches!(most.partial_cmp(&largest), Some(Ordering::Less | Ordering::Equal))
                };
                if units.any(bad) {
                    first = Some(i);
                    break;
                }
            }
        });
        first
    }

    /// Sets all gradients to zero that may be.
    pub fn zero_grads(&mut self) {
        SCRATCH.with_borrow_mut(|scratch| {
            for BatchTensor { tensor, .. } in &self.entries {
                if tensor.spec().zero_grads {
                    // SAFETY: the gradient may be written, and nothing else uses it.
                    unsafe { kernel::zero_grad(tensor, scratch) };
                }
            }
        });
    }

    /// Looks at the gradient in those units of a piece that are in the sample, before the piece is moved.
    fn observe(
        &self,
        level: simd::Level,
        entry: &BatchTensor<'_>,
        piece: &Range<usize>,
        scratch: &mut Scratch,
        sample: Option<Sample>,
    ) {
        for unit in sample.into_iter().flat_map(|sample| sample.units(entry.number, piece.clone())) {
            let cells = unit * REDUCTION_BLOCK..piece.end.min((unit + 1) * REDUCTION_BLOCK);
            // SAFETY: the thread that the piece belongs to writes it later.
            let squares = unsafe {
                kernel::norm_of_unit(level, &entry.tensor, cells, scratch, (Norm::Two, NormScaling::InDtype(1.0)))
            };
            self.norms.set(entry.unit + unit, [squares]);
        }
    }

    /// Sees that the kernels fit the slots, and has room for what a sample comes to.
    fn begin(&mut self, kernels: &[Box<dyn Kernel>], sample: Option<Sample>) {
        assert_eq!(kernels.len(), self.slots.len());
        assert!(self.slots.iter().zip(kernels).all(|(slot, kernel)| slot.supports(kernel.spec())));
        if sample.is_some() {
            self.norms.resize(self.units);
        }
    }

    /// The pieces of tensors that lie on a part of the line of all elements, cut at multiples of `grain` within each tensor. Both
    /// parts at a cut round it down alike, so no two pieces meet.
    fn for_each_piece(&self, line: Range<usize>, grain: usize, mut work: impl FnMut(&BatchTensor<'a>, Range<usize>)) {
        let floor = |position: usize| position - position % grain;
        let first = self.entries.partition_point(|entry| entry.start + entry.tensor.len <= line.start);
        for entry in &self.entries[first..] {
            let BatchTensor { tensor, start, .. } = entry;
            if *start >= line.end {
                break;
            }
            let begin = floor(line.start.saturating_sub(*start));
            let end = if line.end < start + tensor.len { floor(line.end - start) } else { tensor.len };
            work(entry, begin..end);
        }
    }

    /// The units of tensors that lie on a part of the line, each with its number.
    fn for_each_unit(&self, line: Range<usize>, mut work: impl FnMut(&BatchTensor<'a>, usize, Range<usize>)) {
        self.for_each_piece(line, REDUCTION_BLOCK, |entry, piece| {
            for start in piece.clone().step_by(REDUCTION_BLOCK) {
                work(entry, entry.unit + start / REDUCTION_BLOCK, start..piece.end.min(start + REDUCTION_BLOCK));
            }
        });
    }
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = const { RefCell::new(Scratch::new()) };
}
