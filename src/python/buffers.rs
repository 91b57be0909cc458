//! NumPy arrays, read from their headers: addresses, shapes, strides and flags, afresh at every step.
//!
//! An array's header is read directly, since any of it may have changed since the last step, and asking NumPy costs more than
//! the step of a small array. No reference to an array's memory outlives the step.

use std::hash::{BuildHasher, RandomState};
use std::slice;
use std::sync::OnceLock;

use numpy::npyffi::{self, NPY_TYPES, PyArrayObject};
use pyo3::prelude::*;

use crate::engine::{Dtype, Span};

/// The header of an array, for as long as the interpreter is held and no Python code runs.
#[derive(Clone, Copy)]
pub(super) struct Header<'a>(&'a PyArrayObject);

impl<'a> Header<'a> {
    /// The header of an object, if it is an array.
    #[inline]
    pub(super) fn of(object: &'a Bound<'_, PyAny>) -> Option<Self> {
        // SAFETY: the object is alive; the check reads its type alone.
        let is_array = unsafe { npyffi::PyArray_Check(object.py(), object.as_ptr()) } != 0;
        // SAFETY: it is an array, so its header is a `PyArrayObject`, and it lives as long as the borrowed reference.
        is_array.then(|| Self(unsafe { &*object.as_ptr().cast::<PyArrayObject>() }))
    }

    #[inline]
    pub(super) fn dtype(self) -> Option<Dtype> {
        // SAFETY: an array always has a descriptor.
        let descr = unsafe { &(*self.0.fields.descr).fields };
        let native = if cfg!(target_endian = "little") { b'<' } else { b'>' };
        let byteorder = descr.byteorder.cast_unsigned();
        if byteorder != b'=' && byteorder != native {
            return None;
        }
        match descr.type_num {
            n if n == NPY_TYPES::NPY_FLOAT as i32 => Some(Dtype::F32),
            n if n == NPY_TYPES::NPY_DOUBLE as i32 => Some(Dtype::F64),
            _ => None,
        }
    }

    #[inline]
    pub(super) fn shape(self) -> &'a [isize] {
        self.axes(self.0.fields.dimensions)
    }

    #[inline]
    pub(super) fn strides(self) -> &'a [isize] {
        self.axes(self.0.fields.strides)
    }

    #[inline]
    fn axes(self, first: *const isize) -> &'a [isize] {
        match usize::try_from(self.0.fields.nd) {
            // SAFETY: NumPy keeps `nd` numbers there; the pointer may be null only where there are none.
            Ok(axes) if axes > 0 => unsafe { slice::from_raw_parts(first, axes) },
            _ => &[],
        }
    }

    #[inline]
    pub(super) fn len(self) -> usize {
        self.shape().iter().map(|len| len.unsigned_abs()).product()
    }

    #[inline]
    pub(super) fn is_shaped_like(self, other: Self) -> bool {
        // One by one: axes are few, and comparing slices is a call.
        let (shape, others) = (self.shape(), other.shape());
        shape.len() == others.len() && shape.iter().zip(others).all(|(len, other)| len == other)
    }

    #[inline]
    pub(super) fn address(self) -> *mut u8 {
        self.0.fields.data.cast()
    }

    #[inline]
    fn has(self, flag: i32) -> bool {
        self.0.fields.flags & flag != 0
    }

    #[inline]
    pub(super) fn is_writeable(self) -> bool {
        self.has(npyffi::NPY_ARRAY_WRITEABLE)
    }

    /// The orders in which the elements follow each other without gaps, C and Fortran, a bit for each.
    #[inline]
    pub(super) fn order(self) -> i32 {
        self.0.fields.flags & (npyffi::NPY_ARRAY_C_CONTIGUOUS | npyffi::NPY_ARRAY_F_CONTIGUOUS)
    }

    /// The bytes from the first that an element touches to one past the last; `None` without elements.
    #[inline]
    pub(super) fn span(self, dtype: Dtype) -> Option<Span> {
        let start = self.address() as usize;
        let size = dtype.size();
        if self.order() != 0 {
            let len = self.len();
            return (len > 0).then(|| Span { start, end: start + len * size, pattern: 0 });
        }
        let mut span = Span { start, end: start + size, pattern: self.pattern() };
        for (&len, &stride) in self.shape().iter().zip(self.strides()) {
            if len == 0 {
                return None;
            }
            let reach = (len - 1) * stride;
            if reach < 0 {
                span.start = span.start.wrapping_add_signed(reach);
            } else {
                span.end = span.end.wrapping_add_signed(reach);
            }
        }
        Some(span)
    }

    /// A number for the shape and strides, keyed so that nobody can find two alike.
    fn pattern(self) -> u64 {
        static KEYS: OnceLock<RandomState> = OnceLock::new();
        KEYS.get_or_init(RandomState::new).hash_one((self.shape(), self.strides()))
    }

    /// Whether the elements fill their span, each once, with no axis running backwards.
    pub(super) fn is_dense(self, dtype: Dtype) -> bool {
        self.order() != 0
            || (self.strides().iter().zip(self.shape()).all(|(&stride, &len)| stride > 0 || len == 1)
                && self.span(dtype).is_none_or(|span| span.end - span.start == self.len() * dtype.size())
                && !self.overlaps_itself(dtype))
    }

    /// Whether the order of elements in memory is the same as another array's of that shape.
    #[inline]
    pub(super) fn is_ordered_like(self, other: Self) -> bool {
        self.order() & other.order() != 0
            || (self.strides().iter().zip(other.strides()).zip(self.shape())).all(|((a, b), &len)| a == b || len == 1)
    }

    /// Whether two elements may be the same memory. From the fastest axis to the slowest, each must step over all that the
    /// faster ones reach.
    pub(super) fn overlaps_itself(self, dtype: Dtype) -> bool {
        if self.order() != 0 || self.len() == 0 {
            return false;
        }
        let axes = self.shape().iter().zip(self.strides()).filter(|(len, _)| **len > 1);
        let mut axes: Vec<_> = axes.map(|(&len, &stride)| (stride.unsigned_abs(), len.unsigned_abs())).collect();
        axes.sort_unstable();
        let mut reach = dtype.size();
        axes.into_iter().any(|(stride, len)| {
            let overlaps = stride < reach;
            reach += (len - 1) * stride;
            overlaps
        })
    }
}
