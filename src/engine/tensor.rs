//! One parameter as a step sees it: where its weight, gradient and states lie in memory.
//!
//! The arrays of a parameter are its *operands*, numbered [`WEIGHT`], [`GRAD`], then [`STATE`] and on. When all are dense in
//! the same order, a range of elements is a slice of each. Otherwise a tile at a time is gathered and scattered.

use std::marker::PhantomData;
use std::ops::Range;
use std::slice;

use super::format::{Dtype, Element};

/// The most state arrays that a rule may have.
pub const MAX_STATE: usize = 4;
/// The most arrays that a parameter has.
pub const OPERANDS: usize = AVERAGE + 1;
/// The operand that is the weight.
pub const WEIGHT: usize = 0;
/// The operand that is the gradient.
pub const GRAD: usize = 1;
/// The first operand that is a state array.
pub const STATE: usize = 2;
/// The operand that is the average of the weight.
pub const AVERAGE: usize = STATE + MAX_STATE;

/// What a tensor has, or what a kernel needs of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// The format of its arrays.
    pub dtype: Dtype,
    /// How many state arrays there are.
    pub states: usize,
    /// Whether there is an average of the weight.
    pub average: bool,
    /// Whether the gradient may be set to zero.
    pub zero_grads: bool,
}

impl TensorSpec {
    /// Whether a tensor that has this may be used by a kernel that needs that.
    #[must_use]
    pub fn supports(self, needed: Self) -> bool {
        let Self { dtype, states, average, zero_grads } = self;
        (dtype, states) == (needed.dtype, needed.states) && average >= needed.average && zero_grads >= needed.zero_grads
    }
}

/// One parameter: its operands' addresses and how they are laid out.
#[derive(Debug)]
pub struct Tensor<'a> {
    pub(super) len: usize,
    spec: TensorSpec,
    pointers: [*mut u8; OPERANDS],
    layout: Option<Box<Layout>>,
    borrowed: PhantomData<&'a mut [u8]>,
}

// SAFETY: a tensor borrows its memory like a mutable slice does.
unsafe impl Send for Tensor<'_> {}
// SAFETY: memory is reached through `unsafe` methods alone, whose callers keep ranges apart.
unsafe impl Sync for Tensor<'_> {}

impl Tensor<'_> {
    /// A tensor of raw memory, dense in one order unless a layout is given.
    ///
    /// # Safety
    /// For as long as the tensor is used, the weight, the gradient, and the states and the average that it has are valid for
    /// reads, and all but the gradient for writes (that too if it may be set to zero), at `len` elements of the dtype (at
    /// those that the layout reaches); no two elements that are written are the same memory, and nothing else reads or writes
    /// them.
    ///
    /// # Panics
    /// If there are more states than [`MAX_STATE`].
    #[must_use]
    pub unsafe fn new(
        spec: TensorSpec,
        len: usize,
        pointers: [*mut u8; OPERANDS],
        layout: Option<Box<Layout>>,
    ) -> Self {
        assert!(spec.states <= MAX_STATE);
        Self { len, spec, pointers, layout, borrowed: PhantomData }
    }

    /// What it has.
    #[must_use]
    pub const fn spec(&self) -> TensorSpec {
        self.spec
    }

    /// How many elements it has.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no element.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Where weight, gradient and states begin, if all operands are dense in one order.
    #[must_use]
    pub fn addresses(&self) -> Option<&[*mut u8]> {
        self.is_dense().then(|| &self.pointers[..STATE + self.spec.states])
    }

    /// Where the average begins.
    #[must_use]
    pub const fn average(&self) -> *mut u8 {
        self.pointers[AVERAGE]
    }

    /// Puts the gradient at another address.
    ///
    /// # Safety
    /// That of [`new`](Self::new) with the gradient there.
    pub const unsafe fn move_grad(&mut self, address: *mut u8) {
        self.pointers[GRAD] = address;
    }

    pub(super) fn is_dense(&self) -> bool {
        self.layout.is_none()
    }

    /// A range of an operand to read and write: in place if the tensor is dense, else a copy in the scratch that is to be
    /// [closed](Self::close).
    ///
    /// # Safety
    /// The range is within the tensor, the cell is of its dtype, and nothing else uses that range of the operand while the
    /// slice lives. The scratch holds the range if the tensor is not dense.
    #[inline(always)]
    pub(super) unsafe fn open<'s, C: Element>(
        &'s self,
        operand: usize,
        range: Range<usize>,
        scratch: &'s mut [u8],
    ) -> &'s mut [C] {
        if self.is_dense() {
            let start = self.pointers[operand].cast::<C>();
            // SAFETY: the operand is valid at `len` elements, the range is inside and not shared; a cell has alignment 1.
            return unsafe { slice::from_raw_parts_mut(start.add(range.start), range.len()) };
        }
        // SAFETY: as the caller promised.
        unsafe { self.copy(operand, range, scratch) }
    }

    /// A range of an operand to read: in place if the tensor is dense, else a copy in the scratch.
    ///
    /// # Safety
    /// As [`open`](Self::open), but others may read the range too.
    #[inline(always)]
    pub(super) unsafe fn read<'s, C: Element>(
        &'s self,
        operand: usize,
        range: Range<usize>,
        scratch: &'s mut [u8],
    ) -> &'s [C] {
        if self.is_dense() {
            let start = self.pointers[operand].cast_const().cast::<C>();
            // SAFETY: the operand is valid at `len` elements and the range is inside; a cell has alignment 1.
            return unsafe { slice::from_raw_parts(start.add(range.start), range.len()) };
        }
        // SAFETY: as the caller promised.
        unsafe { self.copy(operand, range, scratch) }
    }

    /// A copy of a range of an operand in the scratch.
    ///
    /// # Safety
    /// As [`read`](Self::read), and the scratch holds the range.
    #[inline(always)]
    pub(super) unsafe fn copy<'s, C: Element>(
        &self,
        operand: usize,
        range: Range<usize>,
        scratch: &'s mut [u8],
    ) -> &'s mut [C] {
        let copy = &mut C::cells(scratch)[..range.len()];
        match &self.layout {
            None => {
                let start = self.pointers[operand].cast_const().cast::<C>();
                // SAFETY: the operand is valid at `len` elements and the range is inside; a cell has alignment 1.
                copy.copy_from_slice(unsafe { slice::from_raw_parts(start.add(range.start), range.len()) });
            }
            Some(layout) => layout.for_each_run(operand, range.start, range.len(), |offset, stride, run| {
                // SAFETY: the layout reaches elements of the operand alone.
                let first = unsafe { self.pointers[operand].offset(offset) };
                let run = &mut copy[run];
                if stride == size_of::<C>().cast_signed() {
                    // SAFETY: as above; here they follow each other, and a cell has alignment 1.
                    return run.copy_from_slice(unsafe { slice::from_raw_parts(first.cast::<C>(), run.len()) });
                }
                for (i, cell) in (0_isize..).zip(run) {
                    // SAFETY: as above; a cell has alignment 1.
                    *cell = unsafe { *first.offset(i * stride).cast::<C>() };
                }
            }),
        }
        copy
    }

    /// Sets a range of an operand to zero.
    ///
    /// # Safety
    /// As [`open`](Self::open).
    #[inline(always)]
    pub(super) unsafe fn zero<C: Element>(&self, operand: usize, range: Range<usize>, scratch: &mut [u8]) {
        let start = range.start;
        // SAFETY: as the caller promised; no copy is needed of what is to be overwritten, but it costs little.
        let cells = unsafe { self.open::<C>(operand, range, scratch) };
        cells.fill(C::ZERO);
        // SAFETY: as the caller promised; the cells are those that were opened.
        unsafe { self.close(operand, start, cells) };
    }

    /// Ends what [`open`](Self::open) began: puts a copy back where its elements lie.
    ///
    /// # Safety
    /// The cells are those that `open` returned for the range from `start` on, and its contract still holds.
    #[inline(always)]
    pub(super) unsafe fn close<C: Element>(&self, operand: usize, start: usize, cells: &[C]) {
        let Some(layout) = &self.layout else { return };
        layout.for_each_run(operand, start, cells.len(), |offset, stride, run| {
            // SAFETY: the layout reaches elements of the operand alone.
            let first = unsafe { self.pointers[operand].offset(offset) };
            let run = &cells[run];
            if stride == size_of::<C>().cast_signed() {
                // SAFETY: as above; here they follow each other, a cell has alignment 1, and nothing else uses them.
                unsafe { slice::from_raw_parts_mut(first.cast::<C>(), run.len()) }.copy_from_slice(run);
                return;
            }
            for (i, cell) in (0_isize..).zip(run) {
                // SAFETY: as above; a cell has alignment 1, and nothing else uses these.
                unsafe { *first.offset(i * stride).cast::<C>() = *cell };
            }
        });
    }
}

impl<'a> Tensor<'a> {
    /// A dense tensor of `f32` or `f64` slices.
    ///
    /// # Panics
    /// If the lengths differ or there are more states than [`MAX_STATE`].
    pub fn from_slices<F: Native, const N: usize>(weight: &'a mut [F], grad: &'a [F], state: [&'a mut [F]; N]) -> Self {
        let len = weight.len();
        assert!(grad.len() == len && state.iter().all(|state| state.len() == len) && N <= MAX_STATE);
        let mut pointers = [std::ptr::null_mut(); OPERANDS];
        pointers[WEIGHT] = weight.as_mut_ptr().cast();
        pointers[GRAD] = grad.as_ptr().cast_mut().cast();
        for (pointer, state) in pointers[STATE..].iter_mut().zip(state) {
            *pointer = state.as_mut_ptr().cast();
        }
        let spec = TensorSpec { dtype: F::DTYPE, states: N, average: false, zero_grads: false };
        // SAFETY: the slices are valid and borrowed for 'a, and the gradient's is never written.
        unsafe { Self::new(spec, len, pointers, None) }
    }
}

/// A Rust number that is its own stored format.
pub trait Native: Copy {
    /// The stored format.
    const DTYPE: Dtype;
}

impl Native for f32 {
    const DTYPE: Dtype = Dtype::F32;
}

impl Native for f64 {
    const DTYPE: Dtype = Dtype::F64;
}

/// Where the elements of each operand lie, in one order of elements for all: axes from the slowest to the fastest.
#[derive(Clone, Debug, Default)]
pub struct Layout {
    axes: Vec<Axis>,
}

/// One axis: its length and the distance in bytes from one element to the next, for each operand.
#[derive(Clone, Copy, Debug)]
pub struct Axis {
    /// Elements along the axis, at least 1.
    pub len: usize,
    /// Bytes from one element to the next; negative where the operand runs backwards.
    pub strides: [isize; OPERANDS],
}

impl Layout {
    /// The layout of these axes, in whatever order gives the longest runs through the weight.
    #[must_use]
    pub fn new(mut axes: Vec<Axis>) -> Self {
        axes.retain(|axis| axis.len != 1);
        axes.sort_by_key(|axis| std::cmp::Reverse(axis.strides[WEIGHT].unsigned_abs()));
        let mut merged: Vec<Axis> = Vec::with_capacity(axes.len());
        for axis in axes {
            match merged.last_mut() {
                Some(slow) if slow.continues_in(&axis) => {
                    *slow = Axis { len: slow.len * axis.len, strides: axis.strides };
                }
                _ => merged.push(axis),
            }
        }
        Self { axes: merged }
    }

    /// Calls `run(offset in bytes, stride in bytes, range of cells)` for each run along the fastest axis.
    fn for_each_run(&self, operand: usize, start: usize, len: usize, mut run: impl FnMut(isize, isize, Range<usize>)) {
        let Some((fast, slow)) = self.axes.split_last() else { return run(0, 0, 0..len) };
        let mut done = 0;
        while done < len {
            let at = start + done;
            let (mut row, column) = (at / fast.len, at % fast.len);
            let stride = fast.strides[operand];
            let mut offset = column.cast_signed() * stride;
            for axis in slow.iter().rev() {
                offset += (row % axis.len).cast_signed() * axis.strides[operand];
                row /= axis.len;
            }
            let count = (fast.len - column).min(len - done);
            run(offset, stride, done..done + count);
            done += count;
        }
    }
}

impl Axis {
    /// Whether one step along this axis is the whole of the faster one, for every operand.
    fn continues_in(&self, fast: &Self) -> bool {
        let len = fast.len.cast_signed();
        self.strides.iter().zip(fast.strides).all(|(&slow, fast)| slow == fast * len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn axis(len: usize, weight: isize, grad: isize) -> Axis {
        let mut strides = [0; OPERANDS];
        (strides[WEIGHT], strides[GRAD]) = (weight, grad);
        Axis { len, strides }
    }

    fn offsets(layout: &Layout, operand: usize, start: usize, len: usize) -> Vec<isize> {
        let mut all = vec![0; len];
        layout.for_each_run(operand, start, len, |offset, stride, at| {
            for (i, slot) in (0..).zip(&mut all[at]) {
                *slot = offset + i * stride;
            }
        });
        all
    }

    #[test]
    fn axes_that_continue_each_other_become_one() {
        let layout = Layout::new(vec![axis(2, 48, 48), axis(3, 16, 16), axis(4, 4, 4)]);
        assert_eq!(layout.axes.len(), 1);
        assert_eq!(offsets(&layout, WEIGHT, 22, 2), [88, 92]);
    }

    #[test]
    fn elements_pair_by_index_when_orders_differ() {
        // A 2 × 3 weight in C order with a gradient in Fortran order.
        let layout = Layout::new(vec![axis(2, 12, 4), axis(3, 4, 8)]);
        assert_eq!(offsets(&layout, WEIGHT, 0, 6), [0, 4, 8, 12, 16, 20]);
        assert_eq!(offsets(&layout, GRAD, 0, 6), [0, 8, 16, 4, 12, 20]);
        assert_eq!(offsets(&layout, GRAD, 2, 3), [16, 4, 12]);
    }

    #[test]
    fn a_layout_without_axes_is_one_element() {
        assert_eq!(offsets(&Layout::new(vec![axis(1, 4, 4)]), WEIGHT, 0, 1), [0]);
    }
}
