//! The engine: applies rules to arrays.
//!
//! A [`Batch`] is one step: tensors, each with the kernel that moves it. [`Batch::run`] is the only entry. It lays all tensors
//! end to end, cuts that line into chunks, and deals the chunks to threads; a chunk is a range of one large tensor or
//! holds many small ones. Where the cuts fall has no influence on the result.

mod block;
mod format;
mod kernel;
mod overlap;
pub mod parallel;
pub mod simd;
mod stage;
mod tensor;

use std::cell::RefCell;
use std::ops::Range;

pub use block::LANES;
pub use format::Dtype;
pub use kernel::{Describe, Kernel, Make, Signature, Update};
pub use overlap::{Meeting, Overlaps, Span};
pub use stage::{Decay, Stages};
pub use tensor::{Axis, GRAD, Layout, MAX_STATE, Native, OPERANDS, STATE, Tensor, WEIGHT};

use kernel::Scratch;
use simd::Level;

/// The tensors of one step. Kept from step to step, it allocates nothing.
#[derive(Default)]
pub struct Batch<'a> {
    kernels: Vec<Box<dyn Kernel>>,
    entries: Vec<Entry<'a>>,
    total: usize,
}

struct Entry<'a> {
    tensor: Tensor<'a>,
    kernel: usize,
    /// Where the tensor begins on the line of all elements.
    start: usize,
}

impl<'a> Batch<'a> {
    /// Forgets the tensors and kernels.
    pub fn clear(&mut self) {
        self.kernels.clear();
        self.entries.clear();
        self.total = 0;
    }

    /// Adds a kernel and returns its number for [`push`](Self::push).
    pub fn add_kernel(&mut self, kernel: Box<dyn Kernel>) -> usize {
        self.kernels.push(kernel);
        self.kernels.len() - 1
    }

    /// Puts a kernel, for the same format and number of states, in the place of another.
    ///
    /// # Panics
    /// If there is none of that number, or it was for others.
    pub fn set_kernel(&mut self, number: usize, kernel: Box<dyn Kernel>) {
        assert_eq!(self.kernels[number].operands(), kernel.operands());
        self.kernels[number] = kernel;
    }

    /// The tensors, in the order in which they were added. Their lengths stay as they are.
    pub fn tensors_mut(&mut self) -> impl ExactSizeIterator<Item = &mut Tensor<'a>> {
        self.entries.iter_mut().map(|entry| &mut entry.tensor)
    }

    /// Adds a tensor to be moved by a kernel.
    ///
    /// # Panics
    /// If there is no such kernel, or it was made for another format or another number of states.
    pub fn push(&mut self, tensor: Tensor<'a>, kernel: usize) {
        assert_eq!(self.kernels[kernel].operands(), (tensor.dtype, tensor.states));
        let start = self.total;
        self.total += tensor.len;
        self.entries.push(Entry { tensor, kernel, start });
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

    /// How many elements the step moves.
    #[must_use]
    pub fn total(&self) -> usize {
        self.total
    }

    /// Takes the step: moves every tensor once.
    pub fn run(&mut self) {
        let level = simd::current();
        let batch = &*self;
        parallel::share(self.total, &|range| batch.run_chunk(level, range));
    }

    /// Moves a range of the line of all elements. Within a tensor, cuts fall on whole blocks.
    fn run_chunk(&self, level: Level, chunk: Range<usize>) {
        let first = self.entries.partition_point(|entry| entry.start + entry.tensor.len <= chunk.start);
        SCRATCH.with_borrow_mut(|scratch| {
            for Entry { tensor, kernel, start } in &self.entries[first..] {
                if *start >= chunk.end {
                    break;
                }
                let begin = floor(chunk.start.saturating_sub(*start));
                let end = if chunk.end < start + tensor.len { floor(chunk.end - start) } else { tensor.len };
                // SAFETY: `push` checked that kernel and tensor fit. Every index of a chunk is dealt once, and both
                // chunks at a cut round it down alike, so no two ranges meet.
                unsafe { self.kernels[*kernel].run(level, tensor, begin..end, scratch) };
            }
        });
    }
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = const { RefCell::new(Scratch::new()) };
}

const fn floor(position: usize) -> usize {
    position - position % LANES
}
