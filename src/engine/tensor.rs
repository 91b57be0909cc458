//! The memory of one parameter: its weight, gradient, states and average.
//!
//! These arrays are its *operands*, indexed by [`WEIGHT`], [`GRAD`], [`STATE`] to `STATE + n − 1`, and [`AVERAGE`]. A range of
//! elements is used like this:
//!
//! ```text
//! slice = tensor.open(operand, range, scratch)     dense: the memory itself; else gathered into scratch memory
//! …                                                reads and writes
//! tensor.close(operand, range.start, slice)        dense: nothing; else scattered back
//! ```
//!
//! A tensor is dense if all operands are, in the same order of axes: then any number of dimensions is one slice. Otherwise a
//! [`Layout`] has the axes, with a stride for each operand. It sorts them by the weight's strides, and merges axes that continue
//! each other in all operands, so that runs along the fastest one are long.

use std::marker::PhantomData;
use std::ops::Range;
use std::slice;

use super::format::{Dtype, Element};

/// The maximum number of state arrays of a rule.
pub const MAX_STATE: usize = 4;
/// The maximum number of operands.
pub const OPERANDS: usize = AVERAGE + 1;
/// The weight.
pub const WEIGHT: usize = 0;
/// The gradient.
pub const GRAD: usize = 1;
/// The first state array.
pub const STATE: usize = 2;
/// The average of the weight.
pub const AVERAGE: usize = STATE + MAX_STATE;

/// What a tensor has, or what a kernel requires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// The format of its arrays.
    pub dtype: Dtype,
    /// The number of state arrays.
    pub states: usize,
    /// Whether there is an average of the weight.
    pub average: bool,
    /// Whether the gradient may be set to zero.
    pub zero_grads: bool,
}

impl TensorSpec {
    /// Whether a tensor with this spec may be updated by a kernel that requires `needed`.
    #[must_use]
    pub fn supports(self, needed: Self) -> bool {
        let Self { dtype, states, average, zero_grads } = self;
        (dtype, states) == (needed.dtype, needed.states) && average >= needed.average && zero_grads >= needed.zero_grads
    }
}

/// The operands of one parameter: addresses and layout.
#[derive(Debug)]
pub struct Tensor<'a> {
    pub(super) len: usize,
    spec: TensorSpec,
    pointers: [*mut u8; OPERANDS],
    layout: Option<Box<Layout>>,
    borrowed: PhantomData<&'a mut [u8]>,
}

// SAFETY: a tensor borrows its memory as a mutable slice does.
unsafe impl Send for Tensor<'_> {}
// SAFETY: only `unsafe` methods access memory, and their callers keep ranges apart.
unsafe impl Sync for Tensor<'_> {}

impl Tensor<'_> {
    /// A tensor of raw memory, dense unless a layout is given.
    ///
    /// # Safety
    /// For as long as the tensor is used, at `len` elements of the dtype (those of the layout, if there is one):
    ///
    /// * The weight, the gradient, and the states and the average of the spec are valid for reads.
    /// * All of them but the gradient are valid for writes, and the gradient is too if the spec has `zero_grads`.
    /// * No two written elements share memory, and nothing else reads or writes them.
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

    /// Its spec.
    #[must_use]
    pub const fn spec(&self) -> TensorSpec {
        self.spec
    }

    /// The number of elements.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no elements.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Replaces the address of the gradient.
    ///
    /// # Safety
    /// As [`new`](Self::new), with the gradient at this address.
    pub const unsafe fn move_grad(&mut self, address: *mut u8) {
        self.pointers[GRAD] = address;
    }

    pub(super) fn is_dense(&self) -> bool {
        self.layout.is_none()
    }

    /// A range of an operand to read and write: in place if the tensor is dense, else a copy in scratch memory, which
    /// [`close`](Self::close) writes back.
    ///
    /// # Safety
    /// The range is within the tensor, `E` is of its dtype, and nothing else uses that range of the operand while the slice lives.
    /// Scratch memory is large enough for the range if the tensor is not dense.
    #[inline(always)]
    pub(super) unsafe fn open<'s, E: Element>(
        &'s self,
        operand: usize,
        range: Range<usize>,
        scratch: &'s mut [u8],
    ) -> &'s mut [E] {
        if self.is_dense() {
            let start = self.pointers[operand].cast::<E>();
            // SAFETY: the operand is valid at `len` elements, the range is within and not shared, and an element has alignment 1.
            return unsafe { slice::from_raw_parts_mut(start.add(range.start), range.len()) };
        }
        // SAFETY: the contract is the same.
        unsafe { self.copy(operand, range, scratch) }
    }

    /// A range of an operand to read: in place if the tensor is dense, else a copy in scratch memory.
    ///
    /// # Safety
    /// As [`open`](Self::open), but others may read the range too.
    #[inline(always)]
    pub(super) unsafe fn read<'s, E: Element>(
        &'s self,
        operand: usize,
        range: Range<usize>,
        scratch: &'s mut [u8],
    ) -> &'s [E] {
        if self.is_dense() {
            let start = self.pointers[operand].cast_const().cast::<E>();
            // SAFETY: the operand is valid at `len` elements, the range is within, and an element has alignment 1.
            return unsafe { slice::from_raw_parts(start.add(range.start), range.len()) };
        }
        // SAFETY: the contract is the same.
        unsafe { self.copy(operand, range, scratch) }
    }

    /// A copy of a range of an operand in scratch memory.
    ///
    /// # Safety
    /// As [`read`](Self::read), and scratch memory is large enough for the range.
    #[inline(always)]
    pub(super) unsafe fn copy<'s, E: Element>(
        &self,
        operand: usize,
        range: Range<usize>,
        scratch: &'s mut [u8],
    ) -> &'s mut [E] {
        let copy = &mut E::from_bytes(scratch)[..range.len()];
        match &self.layout {
            None => {
                let start = self.pointers[operand].cast_const().cast::<E>();
                // SAFETY: the operand is valid at `len` elements, the range is within, and an element has alignment 1.
                copy.copy_from_slice(unsafe { slice::from_raw_parts(start.add(range.start), range.len()) });
            }
            Some(layout) => layout.for_each_run(operand, range.start, range.len(), |offset, stride, run| {
                // SAFETY: the layout has elements of the operand alone.
                let first = unsafe { self.pointers[operand].offset(offset) };
                let run = &mut copy[run];
                if stride == size_of::<E>().cast_signed() {
                    // SAFETY: as above; here they are contiguous, and an element has alignment 1.
                    return run.copy_from_slice(unsafe { slice::from_raw_parts(first.cast::<E>(), run.len()) });
                }
                for (i, element) in (0_isize..).zip(run) {
                    // SAFETY: as above; an element has alignment 1.
                    *element = unsafe { *first.offset(i * stride).cast::<E>() };
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
    pub(super) unsafe fn zero<E: Element>(&self, operand: usize, range: Range<usize>, scratch: &mut [u8]) {
        let start = range.start;
        // SAFETY: the contract is the same. Gathering what is overwritten is not needed, but costs little.
        let elements = unsafe { self.open::<E>(operand, range, scratch) };
        elements.fill(E::ZERO);
        // SAFETY: the contract is the same; these are the elements that were opened.
        unsafe { self.close(operand, start, elements) };
    }

    /// Writes a copy made by [`open`](Self::open) back.
    ///
    /// # Safety
    /// The elements are those that `open` returned for the range from `start` on, and its contract still holds.
    #[inline(always)]
    pub(super) unsafe fn close<E: Element>(&self, operand: usize, start: usize, elements: &[E]) {
        let Some(layout) = &self.layout else { return };
        layout.for_each_run(operand, start, elements.len(), |offset, stride, run| {
            // SAFETY: the layout has elements of the operand alone.
            let first = unsafe { self.pointers[operand].offset(offset) };
            let run = &elements[run];
            if stride == size_of::<E>().cast_signed() {
                // SAFETY: as above; here they are contiguous, an element has alignment 1, and nothing else uses them.
                unsafe { slice::from_raw_parts_mut(first.cast::<E>(), run.len()) }.copy_from_slice(run);
                return;
            }
            for (i, element) in (0_isize..).zip(run) {
                // SAFETY: as above; an element has alignment 1, and nothing else uses these.
                unsafe { *first.offset(i * stride).cast::<E>() = *element };
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
        // SAFETY: the slices are valid and borrowed for 'a, and the gradient is never written.
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

/// The layout of operands that are not dense: axes, the slowest first.
#[derive(Clone, Debug, Default)]
pub struct Layout {
    axes: Vec<Axis>,
}

/// An axis of a [`Layout`].
#[derive(Clone, Copy, Debug)]
pub struct Axis {
    /// Its length, at least 1.
    pub len: usize,
    /// For each operand the bytes from one element to the next; negative for a reversed view.
    pub strides: [isize; OPERANDS],
}

impl Layout {
    /// Sorts and merges the axes.
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

    /// Calls `run(offset in bytes, stride in bytes, range of elements)` for each run along the fastest axis.
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
    /// Whether one step along this axis spans the whole of the faster one, for every operand.
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
