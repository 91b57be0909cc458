//! The engine: applies rules to arrays.
//!
//! A [`Batch`] is one step: tensors, each with the kernel that moves it. [`Batch::run`] is the only entry. It lays all tensors
//! end to end, cuts that line into chunks, and deals the chunks to threads; a chunk is a range of one large tensor or
//! holds many small ones. Where the cuts fall has no influence on the result.

mod average;
mod block;
mod format;
mod kernel;
mod overlap;
pub mod parallel;
mod reduce;
pub mod simd;
mod stage;
mod tally;
mod tensor;

use std::cell::RefCell;
use std::ops::Range;

pub use average::Average;
pub use format::Dtype;
pub use kernel::{Describe, Kernel, Make, Signature, Update, watching_squares};
pub use overlap::{Meeting, Overlaps, Span};
pub use reduce::{LANES, Norm};
pub use stage::{Decay, Stages};
pub use tally::Stats;
pub use tensor::{AVERAGE, Access, Axis, GRAD, Layout, MAX_STATE, Native, OPERANDS, STATE, Tensor, WEIGHT};

use kernel::Scratch;
use reduce::{UNIT, Units};
use tally::TALLIES;

/// The tensors of one step. Kept from step to step, it allocates nothing.
#[derive(Default)]
pub struct Batch<'a> {
    /// What the tensors of each kernel have.
    slots: Vec<Access>,
    entries: Vec<Entry<'a>>,
    total: usize,
    units: usize,
    norms: Units<1>,
    tallies: Units<TALLIES>,
}

struct Entry<'a> {
    tensor: Tensor<'a>,
    /// How many tensors there are before it.
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
    pub fn add_slot(&mut self, access: Access) -> usize {
        self.slots.push(access);
        self.slots.len() - 1
    }

    /// Adds a tensor to be moved by the kernel of a slot.
    ///
    /// # Panics
    /// If there is no such slot, or it is for another access.
    pub fn push(&mut self, tensor: Tensor<'a>, slot: usize) {
        assert_eq!(self.slots[slot], tensor.access());
        let (start, unit) = (self.total, self.units);
        self.total += tensor.len;
        self.units += tensor.len.div_ceil(UNIT);
        let number = self.entries.len();
        self.entries.push(Entry { tensor, number, slot, start, unit });
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
    pub fn units(&self) -> usize {
        self.units
    }

    /// How many elements the step moves.
    #[must_use]
    pub fn total(&self) -> usize {
        self.total
    }

    /// Takes the step: moves every tensor once, by the kernels of the slots.
    ///
    /// # Panics
    /// If there is not a kernel for each slot, or one needs more than its tensors have.
    pub fn run(&mut self, kernels: &[Box<dyn Kernel>]) {
        self.check(kernels);
        let level = simd::current();
        let batch = &*self;
        parallel::share(batch.total, &|line| {
            SCRATCH.with_borrow_mut(|scratch| {
                batch.for_each_piece(line, LANES, |Entry { tensor, slot, .. }, piece| {
                    // SAFETY: `check` and `push` saw that kernel and tensor fit, and no two pieces meet.
                    unsafe { kernels[*slot].run(level, tensor, piece, scratch, false) };
                });
            });
        });
    }

    /// [Takes the step](Self::run), and returns what it did to each tensor.
    ///
    /// # Panics
    /// As `run`.
    pub fn run_with_stats(&mut self, kernels: &[Box<dyn Kernel>]) -> Vec<Stats> {
        self.run_looking(kernels, 1, &|_| 0);
        self.entries.iter().map(|entry| Stats::of_units(self.tallies_of(entry, 0, 1))).collect()
    }

    /// [Takes the step](Self::run), and returns the sum of squares of each gradient, and of each weight after the step, of a
    /// sample of the units: one of `stride`, beginning with the number that `first` says for the number of a tensor.
    ///
    /// # Panics
    /// As `run`, and if `stride` is 0.
    pub fn run_with_squares(
        &mut self,
        kernels: &[Box<dyn Kernel>],
        stride: usize,
        first: &(dyn Fn(usize) -> usize + Sync),
    ) -> Vec<[f64; 2]> {
        self.run_looking(kernels, stride, first);
        let add = |sums: [f64; 2], unit: [f64; TALLIES]| [sums[0] + unit[0], sums[1] + unit[1]];
        let sums = |entry: &Entry<'_>| self.tallies_of(entry, first(entry.number), stride).fold([0.0; 2], add);
        self.entries.iter().map(sums).collect()
    }

    /// Takes the step, and looks at a sample of the units.
    fn run_looking(&mut self, kernels: &[Box<dyn Kernel>], stride: usize, first: &(dyn Fn(usize) -> usize + Sync)) {
        self.check(kernels);
        self.tallies.resize(self.units);
        let level = simd::current();
        let batch = &*self;
        parallel::share(batch.total, &|line| {
            SCRATCH.with_borrow_mut(|scratch| {
                batch.for_each_piece(line, UNIT, |entry, piece| {
                    let first = first(entry.number);
                    let mut start = piece.start;
                    while start < piece.end {
                        let unit = start / UNIT;
                        let next = first + unit.saturating_sub(first).next_multiple_of(stride);
                        let looks = next == unit;
                        let end = piece.end.min(if looks { start + UNIT } else { next * UNIT });
                        let kernel = &kernels[entry.slot];
                        // SAFETY: as in `run`.
                        let values = unsafe { kernel.run(level, &entry.tensor, start..end, scratch, looks) };
                        if looks {
                            batch.tallies.set(entry.unit + unit, values);
                        }
                        start = end;
                    }
                });
            });
        });
    }

    fn tallies_of(&self, entry: &Entry<'_>, first: usize, stride: usize) -> impl Iterator<Item = [f64; TALLIES]> {
        let units = first..entry.tensor.len.div_ceil(UNIT);
        units.step_by(stride).map(|unit| self.tallies.get(entry.unit + unit))
    }

    /// The norm of all gradients together, each element first multiplied by a factor.
    pub fn grad_norm(&mut self, norm: Norm, scale: f64) -> f64 {
        self.norms.resize(self.units);
        let level = simd::current();
        let batch = &*self;
        parallel::share(batch.total, &|line| {
            SCRATCH.with_borrow_mut(|scratch| {
                batch.for_each_unit(line, |entry, unit, piece| {
                    // SAFETY: gradients are not written meanwhile.
                    let sum = unsafe { kernel::norm_of_unit(level, &entry.tensor, piece, scratch, (norm, scale)) };
                    batch.norms.set(unit, [sum]);
                });
            });
        });
        norm.total((0..self.units).map(|unit| self.norms.get(unit)[0]))
    }

    /// The number of the first tensor whose gradient has an element that is infinite or NaN when it is multiplied by a factor.
    #[must_use]
    pub fn first_nonfinite(&self, scale: f64) -> Option<usize> {
        let level = simd::current();
        let mut first = None;
        SCRATCH.with_borrow_mut(|scratch| {
            for (i, Entry { tensor, .. }) in self.entries.iter().enumerate() {
                let mut units = (0..tensor.len).step_by(UNIT).map(|start| start..tensor.len.min(start + UNIT));
                let bad = |unit| {
                    // SAFETY: nothing writes gradients meanwhile.
                    !unsafe { kernel::norm_of_unit(level, tensor, unit, scratch, (Norm::Max, scale)) }.is_finite()
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
            for Entry { tensor, .. } in &self.entries {
                if tensor.access().zero_grads {
                    // SAFETY: the gradient may be written, and nothing else uses it.
                    unsafe { kernel::zero_grad(tensor, scratch) };
                }
            }
        });
    }

    fn check(&self, kernels: &[Box<dyn Kernel>]) {
        assert_eq!(kernels.len(), self.slots.len());
        assert!(self.slots.iter().zip(kernels).all(|(slot, kernel)| slot.allows(kernel.access())));
    }

    /// The pieces of tensors that lie on a part of the line of all elements, cut at multiples of `grain` within each tensor. Both
    /// parts at a cut round it down alike, so no two pieces meet.
    fn for_each_piece(&self, line: Range<usize>, grain: usize, mut work: impl FnMut(&Entry<'a>, Range<usize>)) {
        let floor = |position: usize| position - position % grain;
        let first = self.entries.partition_point(|entry| entry.start + entry.tensor.len <= line.start);
        for entry in &self.entries[first..] {
            let Entry { tensor, start, .. } = entry;
            if *start >= line.end {
                break;
            }
            let begin = floor(line.start.saturating_sub(*start));
            let end = if line.end < start + tensor.len { floor(line.end - start) } else { tensor.len };
            work(entry, begin..end);
        }
    }

    /// The units of tensors that lie on a part of the line, each with its number.
    fn for_each_unit(&self, line: Range<usize>, mut work: impl FnMut(&Entry<'a>, usize, Range<usize>)) {
        self.for_each_piece(line, UNIT, |entry, piece| {
            for start in piece.clone().step_by(UNIT) {
                work(entry, entry.unit + start / UNIT, start..piece.end.min(start + UNIT));
            }
        });
    }
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = const { RefCell::new(Scratch::new()) };
}
