//! Where arrays lie: addresses, shapes, strides and flags, read afresh at every step.
//!
//! NumPy's headers are read directly, since any of it may have changed since the last step, and asking NumPy costs more than
//! the step of a small array. No reference to an array's memory outlives the step.

use std::hash::{BuildHasher, RandomState};
use std::sync::OnceLock;
use std::{iter, ptr, slice};

use numpy::npyffi::{self, NPY_ARRAY_C_CONTIGUOUS, NPY_ARRAY_F_CONTIGUOUS, NPY_TYPES, PyArrayObject};
use pyo3::prelude::*;

use super::dlpack::{Description, Exchange};
use super::known::KnownTypes;
use crate::engine::{Dtype, Span};

/// What the arrays of an optimizer are.
#[derive(Clone, Copy)]
pub(super) enum Source {
    NumPy,
    Tensors(&'static Exchange),
}

/// Subclasses of NumPy's arrays whose elements are all that there is to an array.
static PLAIN: KnownTypes = KnownTypes::new();

impl Source {
    /// Finds out what is to be known of an array's type before one of that type can be read. That may run Python code. An array of
    /// a type of which it was not found out, or that can't be used, is read as one [without a format](Header::dtype).
    #[inline]
    pub(super) fn learn(self, array: &Bound<'_, PyAny>) -> PyResult<()> {
        match self {
            Self::Tensors(exchange) => exchange.learn(array),
            Self::NumPy => {
                if is_subclassed(array) && !PLAIN.contains(array) && !is_masked(array)? {
                    PLAIN.add(array.get_type());
                }
            }
        }
        Ok(())
    }
}

/// Whether it is an array of a subclass of NumPy's.
#[inline]
fn is_subclassed(object: &Bound<'_, PyAny>) -> bool {
    let (py, pointer) = (object.py(), object.as_ptr());
    // SAFETY: the object is alive; the checks read its type alone.
    unsafe { npyffi::PyArray_CheckExact(py, pointer) == 0 && npyffi::PyArray_Check(py, pointer) != 0 }
}

/// Whether it is known of an array of a subclass of NumPy's that its elements are all that there is to it; `None` for what is no array.
#[cold]
fn is_known_subclass(object: &Bound<'_, PyAny>) -> Option<bool> {
    is_subclassed(object).then(|| PLAIN.contains(object))
}

/// Whether it is a masked array of NumPy. That may run Python code.
#[cold]
pub(super) fn is_masked(object: &Bound<'_, PyAny>) -> PyResult<bool> {
    object.get_type().is_subclass(&object.py().import("numpy.ma")?.getattr("MaskedArray")?)
}

/// Whether anyone but the caller, who has one reference to it, can come to the memory of an array of NumPy: others have references to
/// it, or to the array that it is a view of, or its memory is something else's. It runs no Python code.
#[inline]
pub(super) fn is_held(array: &Bound<'_, PyAny>) -> bool {
    // SAFETY: the array is alive.
    unsafe { pyo3::ffi::Py_REFCNT(array.as_ptr()) > 1 || is_held_elsewhere(array.py(), array.as_ptr()) }
}

/// # Safety
/// It is an object that lives.
#[cold]
unsafe fn is_held_elsewhere(py: Python<'_>, object: *mut pyo3::ffi::PyObject) -> bool {
    // SAFETY: the caller's promise; the check reads the object's type alone.
    if unsafe { npyffi::PyArray_Check(py, object) } == 0 {
        return true;
    }
    // SAFETY: it is an array, as was checked, so its header is a `PyArrayObject`.
    let base = unsafe { (*object.cast::<PyArrayObject>()).fields.base };
    // SAFETY: an array owns a reference to its base, if it has one.
    !base.is_null() && unsafe { pyo3::ffi::Py_REFCNT(base) > 1 || is_held_elsewhere(py, base) }
}

/// An array as it is now, for as long as the interpreter is held and no Python code runs.
///
/// Whoever keeps one, or what was read of one, sees to that: there is no owner whose reference would keep the memory from being freed or
/// replaced, since an array can be given other memory while there are references to it.
#[derive(Clone, Copy)]
pub(super) struct Header<'a> {
    address: *mut u8,
    dtype: Option<Dtype>,
    shape: &'a [isize],
    strides: &'a [isize],
    /// What strides count, in bytes.
    unit: isize,
    /// Whether each element is two numbers, side by side, as complex ones are.
    paired: bool,
    is_writeable: bool,
    is_tensor: bool,
    order: i32,
    /// How large its whole numbers are, if its elements are signed ones, which only counts of steps may be.
    whole: Option<Whole>,
}

/// Signed whole numbers.
#[derive(Clone, Copy)]
pub(super) enum Whole {
    I32,
    I64,
}

impl<'a> Header<'a> {
    /// The header of an object, if it is an array. It runs no Python code.
    #[inline(always)]
    pub(super) fn of(object: &'a Bound<'_, PyAny>, source: Source) -> Option<Self> {
        match source {
            Source::NumPy => Self::of_array(object),
            Source::Tensors(exchange) => match exchange.describe(object) {
                // SAFETY: the description is that of the object, which lives for 'a.
                Some(description) => Some(unsafe { Self::of_tensor(&description) }),
                None => exchange.is_tensor(object).then_some(Self::NOWHERE),
            },
        }
    }

    // Four are read of each parameter at each step: as a function of its own that takes 3 ns longer.
    #[inline(always)]
    fn of_array(object: &'a Bound<'_, PyAny>) -> Option<Self> {
        // SAFETY: the object is alive; the check reads its type alone.
        let is_exact = unsafe { npyffi::PyArray_CheckExact(object.py(), object.as_ptr()) } != 0;
        let is_known = is_exact || is_known_subclass(object)?;
        // SAFETY: it is an array, so its header is a `PyArrayObject`, and it lives as long as the borrowed reference.
        let fields = unsafe { &(*object.as_ptr().cast::<PyArrayObject>()).fields };
        // SAFETY: an array always has a descriptor.
        let descr = unsafe { &(*fields.descr).fields };
        let native = if cfg!(target_endian = "little") { b'<' } else { b'>' };
        // C's `char` has a sign on some platforms and none on others.
        let [byteorder] = descr.byteorder.to_ne_bytes();
        let dtype = match descr.type_num {
            _ if !is_known || (byteorder != b'=' && byteorder != native) => None,
            n if n == NPY_TYPES::NPY_FLOAT as i32 => Some(Dtype::F32),
            n if n == NPY_TYPES::NPY_DOUBLE as i32 => Some(Dtype::F64),
            _ => None,
        };
        // SAFETY: NumPy keeps `nd` numbers there.
        let axes = |first: *const isize| unsafe { numbers(first, fields.nd) };
        Some(Self {
            address: fields.data.cast(),
            dtype,
            shape: axes(fields.dimensions),
            strides: axes(fields.strides),
            unit: 1,
            paired: false,
            is_writeable: fields.flags & npyffi::NPY_ARRAY_WRITEABLE != 0,
            is_tensor: false,
            order: fields.flags & (NPY_ARRAY_C_CONTIGUOUS | NPY_ARRAY_F_CONTIGUOUS),
            whole: None,
        })
    }

    /// The header of what has no memory.
    const NOWHERE: Self = Self {
        address: ptr::null_mut(),
        dtype: None,
        shape: &[],
        strides: &[],
        unit: 1,
        paired: false,
        is_writeable: false,
        is_tensor: true,
        order: 0,
        whole: None,
    };

    /// The header of a tensor; without a format if it has no memory here.
    ///
    /// # Safety
    /// The description is that of a tensor which lives for 'a, and is given no other shape as long as the header is used.
    #[inline]
    unsafe fn of_tensor(description: &Description) -> Self {
        // SAFETY: the description has `axes` numbers there, which the tensor owns, and the caller promised that they stay; on 64 bits
        // they are of the same type.
        let axes = |first: *const i64| unsafe { numbers(first.cast::<isize>(), description.axes) };
        let (shape, strides) = (axes(description.shape), axes(description.strides));
        let here = Self { shape, strides, ..Self::NOWHERE };
        // What has no elements needs no memory.
        let empty = shape.contains(&0);
        let Some(address) = description.address().or(empty.then(ptr::dangling_mut)) else { return here };
        let Some((dtype, paired)) = description.dtype() else {
            return Self { address, whole: description.whole(), ..here };
        };
        Self {
            address,
            dtype: Some(dtype),
            unit: dtype.size().cast_signed() << u8::from(paired),
            paired,
            is_writeable: true,
            order: order_of(shape, strides),
            ..here
        }
    }

    /// Whether it has no memory here.
    #[inline]
    pub(super) fn is_nowhere(self) -> bool {
        self.is_tensor && self.address.is_null()
    }

    /// Whether it may be a view that conjugates or negates what its memory holds, which the memory does not say. Views that
    /// negate are imaginary parts, which are strided unless they are of one element.
    #[inline]
    pub(super) fn may_be_lazy(self) -> bool {
        self.paired || (self.is_tensor && (self.order == 0 || self.len() == 1))
    }

    #[inline]
    pub(super) fn dtype(self) -> Option<Dtype> {
        self.dtype
    }

    #[inline]
    pub(super) fn is_scalar(self) -> bool {
        self.shape.is_empty()
    }

    /// The length of each axis and its stride in bytes. Elements that are two numbers have an axis more.
    #[inline]
    pub(super) fn axes(self) -> impl Iterator<Item = (isize, isize)> + Clone {
        let outer = self.shape.iter().zip(self.strides).map(move |(&len, &stride)| (len, stride * self.unit));
        outer.chain(self.paired.then_some((2, self.unit / 2)))
    }

    #[inline]
    pub(super) fn len(self) -> usize {
        let elements: usize = self.shape.iter().map(|len| len.unsigned_abs()).product();
        elements << u8::from(self.paired)
    }

    #[inline]
    pub(super) fn is_shaped_like(self, other: Self) -> bool {
        // One by one: axes are few, and comparing slices is a call.
        self.paired == other.paired
            && self.shape.len() == other.shape.len()
            && self.shape.iter().zip(other.shape).all(|(len, other)| len == other)
    }

    /// Whether it has the elements of another array, in the same order.
    pub(super) fn is_same_memory(self, other: Self) -> bool {
        let same = self.address == other.address && self.strides == other.strides || self.len() == 0;
        same && self.is_shaped_like(other)
    }

    #[inline]
    pub(super) fn address(self) -> *mut u8 {
        self.address
    }

    #[inline]
    pub(super) fn is_writeable(self) -> bool {
        self.is_writeable
    }

    /// The orders in which the elements follow each other without gaps, C and Fortran, a bit for each.
    #[inline]
    pub(super) fn order(self) -> i32 {
        self.order
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
        for (len, stride) in self.axes() {
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
        KEYS.get_or_init(RandomState::new).hash_one((self.shape, self.strides, self.unit, self.paired))
    }

    /// Whether the elements fill their span, each once, with no axis running backwards.
    pub(super) fn is_dense(self, dtype: Dtype) -> bool {
        self.order() != 0
            || (self.axes().all(|(len, stride)| stride > 0 || len == 1)
                && self.span(dtype).is_none_or(|span| span.end - span.start == self.len() * dtype.size())
                && !self.overlaps_itself(dtype))
    }

    /// Whether the order of elements in memory is the same as another array's of that shape.
    #[inline]
    pub(super) fn is_ordered_like(self, other: Self) -> bool {
        self.order() & other.order() != 0
            || iter::zip(self.axes(), other.axes()).all(|((len, a), (_, b))| a == b || len == 1)
    }

    /// Whether two elements may be the same memory. From the fastest axis to the slowest, each must step over all that the
    /// faster ones reach.
    pub(super) fn overlaps_itself(self, dtype: Dtype) -> bool {
        if self.order() != 0 || self.len() == 0 {
            return false;
        }
        let axes = self.axes().filter(|&(len, _)| len > 1);
        let mut axes: Vec<_> = axes.map(|(len, stride)| (stride.unsigned_abs(), len.unsigned_abs())).collect();
        axes.sort_unstable();
        let mut reach = dtype.size();
        axes.into_iter().any(|(stride, len)| {
            let overlaps = stride < reach;
            reach += (len - 1) * stride;
            overlaps
        })
    }

    /// The number that an array of one element holds, whatever its shape.
    pub(super) fn number(self) -> Option<f64> {
        // SAFETY: the array is as its header says: whoever has one runs no Python code meanwhile.
        self.place().map(|place| unsafe { place.get() })
    }

    /// Where the number of an array of one element lies, if it may be written.
    pub(super) fn place(self) -> Option<Place> {
        let (address, alone) = (self.address as usize, self.len() == 1 && !self.paired);
        let format = match (self.dtype, self.whole) {
            (Some(dtype), _) => self.is_writeable.then_some(Format::Float(dtype)),
            (None, whole) => whole.map(Format::Whole),
        };
        format.filter(|_| alone).map(|format| Place { address, format })
    }
}

/// Where one number lies.
pub(super) struct Place {
    address: usize,
    format: Format,
}

#[derive(Clone, Copy)]
enum Format {
    Float(Dtype),
    Whole(Whole),
}

impl Place {
    /// # Safety
    /// The array is where it was when this was read of its header, and nobody writes it.
    #[expect(clippy::cast_precision_loss, reason = "nobody counts to 2⁵³")]
    unsafe fn get(&self) -> f64 {
        match self.format {
            // SAFETY: the caller's promise.
            Format::Float(Dtype::F32) => f64::from(unsafe { (self.address as *const f32).read_unaligned() }),
            // SAFETY: as above.
            Format::Float(Dtype::F64) => unsafe { (self.address as *const f64).read_unaligned() },
            // SAFETY: as above.
            Format::Whole(Whole::I32) => f64::from(unsafe { (self.address as *const i32).read_unaligned() }),
            // SAFETY: as above.
            Format::Whole(Whole::I64) => unsafe { (self.address as *const i64).read_unaligned() as f64 },
        }
    }

    /// # Safety
    /// The array is where it was when this was read of its header, and nobody else uses it.
    #[expect(clippy::cast_possible_truncation, reason = "the format has no more digits")]
    pub(super) unsafe fn set(&self, number: f64) {
        match self.format {
            // SAFETY: the caller's promise.
            Format::Float(Dtype::F32) => unsafe { (self.address as *mut f32).write_unaligned(number as f32) },
            // SAFETY: as above.
            Format::Float(Dtype::F64) => unsafe { (self.address as *mut f64).write_unaligned(number) },
            // SAFETY: as above.
            Format::Whole(Whole::I32) => unsafe { (self.address as *mut i32).write_unaligned(number as i32) },
            // SAFETY: as above.
            Format::Whole(Whole::I64) => unsafe { (self.address as *mut i64).write_unaligned(number as i64) },
        }
    }
}

/// So many numbers from an address on.
///
/// # Safety
/// They are there, for as long as the slice is used. The address may be null where there are none.
#[inline]
unsafe fn numbers<'a>(first: *const isize, count: i32) -> &'a [isize] {
    match usize::try_from(count) {
        // SAFETY: the caller's promise.
        Ok(count) if count > 0 => unsafe { slice::from_raw_parts(first, count) },
        _ => &[],
    }
}

/// [`Header::order`] of an array with these axes, its strides in elements.
#[inline]
fn order_of(shape: &[isize], strides: &[isize]) -> i32 {
    if shape.contains(&0) {
        return NPY_ARRAY_C_CONTIGUOUS | NPY_ARRAY_F_CONTIGUOUS;
    }
    let axes = || iter::zip(shape, strides);
    let c = if follow_each_other(axes().rev()) { NPY_ARRAY_C_CONTIGUOUS } else { 0 };
    let f = if follow_each_other(axes()) { NPY_ARRAY_F_CONTIGUOUS } else { 0 };
    c | f
}

/// Whether elements lie without gaps along axes from the fastest to the slowest.
#[inline]
fn follow_each_other<'a>(mut axes: impl Iterator<Item = (&'a isize, &'a isize)>) -> bool {
    let mut reach = 1;
    axes.all(|(&len, &stride)| {
        let fits = len == 1 || stride == reach;
        reach *= len;
        fits
    })
}
