//! The engine: applies rules to arrays.
//!
//! A [`Batch`] is one step: tensors, and for each the kernel that updates it. [`Batch::run`] takes the step:
//!
//! ```text
//! line    all tensors end to end
//! chunk   a range of the line, run by one thread: a part of one large tensor, or many small tensors
//! piece   the part of a chunk that lies in one tensor; kernel.run(tensor, piece)
//! ```
//!
//! Where the line is cut does not influence the result.

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

use kernel::{NormFactor, Scratch};
use reduce::{BlockSums, REDUCTION_BLOCK};
use stats::STATS;

/// The tensors of one step. Reused from step to step, it allocates nothing.
#[derive(Default)]
pub struct Batch<'a> {
    /// What the tensors of each kernel have.
    specs: Vec<TensorSpec>,
    tensors: Vec<BatchTensor<'a>>,
    elements: usize,
    reduction_blocks: usize,
    norms: BlockSums<1>,
    stats: BlockSums<STATS>,
}

struct BatchTensor<'a> {
    tensor: Tensor<'a>,
    /// Identifies the tensor to a [`Sample`].
    id: usize,
    kernel: usize,
    /// Its first element on the line of all elements.
    start: usize,
    /// Its first reduction block among those of all tensors.
    first_block: usize,
}

impl BatchTensor<'_> {
    /// The part of a chunk that lies in this tensor. Both chunks at a cut round it down to a multiple of `grain`, so no two pieces
    /// overlap.
    fn piece(&self, chunk: &Range<usize>, grain: usize) -> Range<usize> {
        let floor = |position: usize| position - position % grain;
        let (start, len) = (self.start, self.tensor.len);
        let end = if chunk.end < start + len { floor(chunk.end - start) } else { len };
        floor(chunk.start.saturating_sub(start))..end
    }
}

/// A strided sample of reduction blocks: block `i` of tensor `t` is sampled when `(i + t) % stride == phase % stride`.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// One of this many reduction blocks is sampled.
    pub stride: NonZeroUsize,
    /// Which one.
    pub phase: usize,
}

impl Sample {
    /// The sampled reduction blocks that begin within a range of tensor `t`.
    fn blocks(self, t: usize, range: Range<usize>) -> impl Iterator<Item = usize> {
        let stride = self.stride.get();
        let blocks = range.start.div_ceil(REDUCTION_BLOCK)..range.end.div_ceil(REDUCTION_BLOCK);
        let to_phase = (self.phase % stride + stride - (t + blocks.start) % stride) % stride;
        (blocks.start + to_phase..blocks.end).step_by(stride)
    }
}

impl<'a> Batch<'a> {
    /// Removes all tensors and kernels.
    pub fn clear(&mut self) {
        self.specs.clear();
        self.tensors.clear();
        self.elements = 0;
        self.reduction_blocks = 0;
    }

    /// Adds a kernel, for tensors of this spec, and returns its index.
    pub fn add_kernel(&mut self, spec: TensorSpec) -> usize {
        self.specs.push(spec);
        self.specs.len() - 1
    }

    /// Adds a tensor to be updated by a kernel. The id identifies it to a [`Sample`].
    ///
    /// # Panics
    /// If there is no such kernel, or it is for another spec.
    pub fn push(&mut self, tensor: Tensor<'a>, kernel: usize, id: usize) {
        assert_eq!(self.specs[kernel], tensor.spec());
        let (start, first_block) = (self.elements, self.reduction_blocks);
        self.elements += tensor.len;
        self.reduction_blocks += tensor.len.div_ceil(REDUCTION_BLOCK);
        self.tensors.push(BatchTensor { tensor, id, kernel, start, first_block });
    }

    /// The tensors, in the order in which they were added. Their lengths must not change.
    pub fn tensors_mut(&mut self) -> impl ExactSizeIterator<Item = &mut Tensor<'a>> {
        self.tensors.iter_mut().map(|entry| &mut entry.tensor)
    }

    /// The number of tensors.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tensors.len()
    }

    /// Whether there is no tensor.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tensors.is_empty()
    }

    /// The number of reduction blocks.
    #[must_use]
    pub fn reduction_blocks(&self) -> usize {
        self.reduction_blocks
    }

    /// The number of elements.
    #[must_use]
    pub fn total(&self) -> usize {
        self.elements
    }

    /// Takes the step: updates every tensor once. The sample is available from [`sampled_squares`](Self::sampled_squares)
    /// afterwards.
    ///
    /// # Panics
    /// If there are more or fewer kernels than were added, or one needs more than its tensors have.
    pub fn run(&mut self, kernels: &[Box<dyn Kernel>], sample: Option<Sample>) {
        self.begin(kernels, sample);
        let grain = if sample.is_some() { REDUCTION_BLOCK } else { BLOCK };
        let level = simd::current();
        let batch = &*self;
        batch.for_each_piece(grain, |entry, piece, scratch| {
            batch.sample_squares(level, entry, &piece, scratch, sample);
            // SAFETY: `begin` and `push` checked that the tensor supports the kernel, and no two pieces overlap.
            unsafe { kernels[entry.kernel].run(level, &entry.tensor, piece, scratch) };
        });
    }

    /// [Takes the step](Self::run), and returns the statistics of each tensor.
    ///
    /// # Panics
    /// As `run`.
    pub fn run_with_stats(&mut self, kernels: &[Box<dyn Kernel>], sample: Option<Sample>) -> Vec<Stats> {
        self.begin(kernels, sample);
        self.stats.resize(self.reduction_blocks);
        let level = simd::current();
        let batch = &*self;
        batch.for_each_block(|entry, block, range, scratch| {
            batch.sample_squares(level, entry, &range, scratch, sample);
            // SAFETY: as in `run`.
            let values = unsafe { kernels[entry.kernel].run_with_stats(level, &entry.tensor, range, scratch) };
            batch.stats.set(block, values);
        });
        let of_tensor = |entry: &BatchTensor<'_>| {
            let blocks = entry.first_block..entry.first_block + entry.tensor.len.div_ceil(REDUCTION_BLOCK);
            Stats::from_blocks(blocks.map(|block| self.stats.get(block)))
        };
        self.tensors.iter().map(of_tensor).collect()
    }

    /// The norm of all gradients together, each element multiplied by a factor. It is also right where squares, their sum, or
    /// products with the factor are out of range.
    pub fn grad_norm(&mut self, norm: Norm, factor: Factor) -> Factor {
        let value = factor.value();
        let total = self.reduce_grads(norm, NormFactor::InDtype(value));
        let has_float64 = self.specs.iter().any(|spec| spec.dtype == Dtype::F64);
        if norm.is_exact(total, has_float64) && (value.is_normal() || value == 0.0) {
            return Factor::from(norm.of_total(total));
        }
        let most = self.reduce_grads(Norm::Max, NormFactor::InF64(1.0));
        if most == 0.0 || !most.is_finite() {
            return most.into();
        }
        // With the largest element scaled to 1 no square overflows, and those that underflow don't count.
        let shift = Factor::new(1.0, Factor::from(most).exponent().max(-1000));
        let total = self.reduce_grads(norm, NormFactor::InF64(Factor::ONE.over(shift).value()));
        Factor::from(norm.of_total(total)).times(shift).times(factor)
    }

    fn reduce_grads(&mut self, norm: Norm, factor: NormFactor) -> f64 {
        self.norms.resize(self.reduction_blocks);
        let level = simd::current();
        self.for_each_block(|entry, block, range, scratch| {
            // SAFETY: nothing writes gradients here.
            let sum = unsafe { kernel::norm_of_block(level, &entry.tensor, range, scratch, (norm, factor)) };
            self.norms.set(block, [sum]);
        });
        norm.total((0..self.reduction_blocks).map(|block| self.norms.get(block)[0]))
    }

    /// The sum of squares of the gradients in the sampled reduction blocks of the last step.
    #[must_use]
    pub fn sampled_squares(&self, sample: Sample) -> f64 {
        let blocks = |entry: &BatchTensor<'_>| {
            let first = entry.first_block;
            sample.blocks(entry.id, 0..entry.tensor.len).map(move |block| first + block)
        };
        self.tensors.iter().flat_map(blocks).map(|block| self.norms.get(block)[0]).sum()
    }

    /// The largest finite number of the narrowest dtype.
    #[must_use]
    pub fn largest_of_dtypes(&self) -> f64 {
        self.specs.iter().map(|spec| spec.dtype.largest()).fold(f64::MAX, f64::min)
    }

    /// The index of the first tensor whose gradient has an infinite element or NaN after multiplication by a factor.
    #[must_use]
    pub fn first_nonfinite(&self, factor: Factor) -> Option<usize> {
        let level = simd::current();
        let factor = NormFactor::InDtype(factor.value());
        SCRATCH.with_borrow_mut(|scratch| {
            self.tensors.iter().position(|BatchTensor { tensor, .. }| {
                let largest = tensor.spec().dtype.largest();
                (0..tensor.len).step_by(REDUCTION_BLOCK).any(|start| {
                    let block = start..tensor.len.min(start + REDUCTION_BLOCK);
                    // SAFETY: nothing writes gradients here.
                    let most = unsafe { kernel::norm_of_block(level, tensor, block, scratch, (Norm::Max, factor)) };
                    // NaN compares as neither.
                    !matches!(most.partial_cmp(&largest), Some(Ordering::Less | Ordering::Equal))
                })
            })
        })
    }

    /// Sets the gradients to zero, of those tensors where that is allowed.
    pub fn zero_grads(&mut self) {
        SCRATCH.with_borrow_mut(|scratch| {
            for BatchTensor { tensor, .. } in &self.tensors {
                if tensor.spec().zero_grads {
                    // SAFETY: the gradient may be written, and nothing else uses it.
                    unsafe { kernel::zero_grad(tensor, scratch) };
                }
            }
        });
    }

    /// Sums the squares of the gradient in the sampled reduction blocks of a piece, before its update.
    fn sample_squares(
        &self,
        level: simd::Level,
        entry: &BatchTensor<'_>,
        piece: &Range<usize>,
        scratch: &mut Scratch,
        sample: Option<Sample>,
    ) {
        for block in sample.into_iter().flat_map(|sample| sample.blocks(entry.id, piece.clone())) {
            let range = block * REDUCTION_BLOCK..piece.end.min((block + 1) * REDUCTION_BLOCK);
            let norm = (Norm::Two, NormFactor::InDtype(1.0));
            // SAFETY: only this thread writes the piece, and it does so later.
            let squares = unsafe { kernel::norm_of_block(level, &entry.tensor, range, scratch, norm) };
            self.norms.set(entry.first_block + block, [squares]);
        }
    }

    /// Checks the kernels, and allocates the sums of a sample.
    fn begin(&mut self, kernels: &[Box<dyn Kernel>], sample: Option<Sample>) {
        assert_eq!(kernels.len(), self.specs.len());
        assert!(self.specs.iter().zip(kernels).all(|(spec, kernel)| spec.supports(kernel.spec())));
        if sample.is_some() {
            self.norms.resize(self.reduction_blocks);
        }
    }

    /// Calls `work(tensor, piece, scratch)` for every piece, on several threads. Pieces are cut at multiples of `grain` within their
    /// tensor.
    fn for_each_piece(&self, grain: usize, work: impl Fn(&BatchTensor<'a>, Range<usize>, &mut Scratch) + Sync) {
        parallel::for_each_chunk(self.elements, &|chunk| {
            SCRATCH.with_borrow_mut(|scratch| {
                let first = self.tensors.partition_point(|entry| entry.start + entry.tensor.len <= chunk.start);
                for entry in self.tensors[first..].iter().take_while(|entry| entry.start < chunk.end) {
                    work(entry, entry.piece(&chunk, grain), scratch);
                }
            });
        });
    }

    /// Calls `work(tensor, index among all reduction blocks, range, scratch)` for every reduction block, on several threads.
    fn for_each_block(&self, work: impl Fn(&BatchTensor<'a>, usize, Range<usize>, &mut Scratch) + Sync) {
        self.for_each_piece(REDUCTION_BLOCK, |entry, piece, scratch| {
            for start in piece.clone().step_by(REDUCTION_BLOCK) {
                let range = start..piece.end.min(start + REDUCTION_BLOCK);
                work(entry, entry.first_block + start / REDUCTION_BLOCK, range, scratch);
            }
        });
    }
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = const { RefCell::new(Scratch::new()) };
}
