//! Addresses, shapes, strides and flags of arrays, read again at every step.
//!
//! A NumPy array is read from its C struct: any of it may have changed since the last step, and asking NumPy takes longer than the step
//! of a small array. A tensor is read through [`dlpack`](super::dlpack).

use std::hash::{BuildHasher, RandomState};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::{iter, ptr, slice};

use numpy::npyffi::{self, NPY_ARRAY_C_CONTIGUOUS, NPY_ARRAY_F_CONTIGUOUS, NPY_TYPES, PyArrayObject};
use pyo3::ffi::{Py_REFCNT, PyObject, PyObject_TypeCheck, PyTypeObject};
use pyo3::prelude::*;

use super::dlpack::{DLTensor, DlpackApi, IntFormat};
use super::fingerprint::Words;
use super::known_types::KnownTypes;
use crate::engine::{Dtype, Span};

/// The kind of an optimizer's arrays.
#[derive(Clone, Copy)]
pub(super) enum ArrayKind {
    NumPy,
    Tensors(&'static DlpackApi),
}

/// Subclasses of `numpy.ndarray` without a mask.
static PLAIN: KnownTypes = KnownTypes::new();

impl ArrayKind {
    /// Finds out whether arrays of this type can be read without running Python code. It may run some itself. An array of another type
    /// is viewed as one [without a dtype](ArrayView::dtype).
    #[inline]
    pub(super) fn learn(self, array: &Bound<'_, PyAny>) -> PyResult<()> {
        match self {
            Self::Tensors(api) => api.learn(array),
            Self::NumPy => {
                if !is_exact(array) && is_numpy(array) && !PLAIN.contains(array) && !is_masked(array)? {
                    PLAIN.add(array.get_type());
                }
            }
        }
        Ok(())
    }

    /// Puts all facts about an array that a plan depends on: with `address` also where it is. It runs no Python code.
    ///
    /// `None` if they differ, or if that can't be known without running some. It reads NumPy's struct: with views, the comparison of the four
    /// arrays of a parameter took 640 instructions instead of 435.
    #[inline(always)]
    pub(super) fn put(self, object: &Bound<'_, PyAny>, address: bool, words: &mut impl Words) -> Option<Located> {
        const FLAGS: i32 = NPY_ARRAY_C_CONTIGUOUS | NPY_ARRAY_F_CONTIGUOUS | npyffi::NPY_ARRAY_WRITEABLE;
        if let Self::Tensors(_) = self {
            return ArrayView::of(object, self)?.put(address, words);
        }
        let is_plain = is_exact(object) || (is_numpy(object) && PLAIN.contains(object));
        if !is_plain {
            return None;
        }
        // SAFETY: it is a NumPy array, and an array always has a descriptor.
        let (fields, descriptor) = unsafe {
            let fields = &struct_of(object).fields;
            (fields, &(*fields.descr).fields)
        };
        let flags = (fields.flags & FLAGS).cast_unsigned() as usize;
        let ndim = usize::try_from(fields.nd).ok()?;
        let [byteorder] = descriptor.byteorder.to_ne_bytes();
        let dtype = (descriptor.type_num.cast_unsigned() as usize) << 8 | usize::from(byteorder);
        let is_same = (!address || words.put([fields.data as usize])) && words.put([ndim << 16 | flags, dtype]);
        // SAFETY: NumPy keeps `nd` lengths and strides there.
        let (shape, strides) = unsafe { (slice_of(fields.dimensions, fields.nd), slice_of(fields.strides, fields.nd)) };
        (is_same && put_axes(shape, strides, words))
            .then(|| Located { address: fields.data.cast(), may_be_lazy: false })
    }
}

#[inline(always)]
fn put_axes(shape: &[isize], strides: &[isize], words: &mut impl Words) -> bool {
    iter::zip(shape, strides).all(|(len, stride)| words.put([len.cast_unsigned(), stride.cast_unsigned()]))
}

/// What a step reads of an array whose [facts](ArrayKind::put) are those of its plan.
pub(super) struct Located {
    pub(super) address: *mut u8,
    pub(super) may_be_lazy: bool,
}

/// `numpy.ndarray`. Looking it up in NumPy's table of functions would take 20 instructions for each array of a step.
#[inline]
fn ndarray_type(py: Python<'_>) -> *mut PyTypeObject {
    static TYPE: AtomicPtr<PyTypeObject> = AtomicPtr::new(ptr::null_mut());
    let known = TYPE.load(Ordering::Relaxed);
    if !known.is_null() {
        return known;
    }
    // SAFETY: the interpreter is held.
    let found = unsafe { npyffi::get_type_object(py, npyffi::NpyTypes::PyArray_Type) };
    TYPE.store(found, Ordering::Relaxed);
    found
}

/// Whether it is a NumPy array, and not one of a subclass.
#[inline]
fn is_exact(object: &Bound<'_, PyAny>) -> bool {
    object.get_type_ptr() == ndarray_type(object.py())
}

/// Whether it is a NumPy array, also one of a subclass.
#[inline]
fn is_numpy(object: &Bound<'_, PyAny>) -> bool {
    // SAFETY: the object is alive, and only its type is read.
    unsafe { PyObject_TypeCheck(object.as_ptr(), ndarray_type(object.py())) != 0 }
}

/// The C struct of a NumPy array.
///
/// # Safety
/// It is a NumPy array.
#[inline]
unsafe fn struct_of<'a>(array: &'a Bound<'_, PyAny>) -> &'a PyArrayObject {
    // SAFETY: the struct of an array is a `PyArrayObject`, and the borrowed reference keeps it alive.
    unsafe { &*array.as_ptr().cast::<PyArrayObject>() }
}

/// Whether it is a masked array of NumPy. That may run Python code.
#[cold]
pub(super) fn is_masked(object: &Bound<'_, PyAny>) -> PyResult<bool> {
    object.get_type().is_subclass(&object.py().import("numpy.ma")?.getattr("MaskedArray")?)
}

/// Whether anyone but the caller, who has one reference to a NumPy array, can reach its memory: through another reference to it, to the
/// array that it is a view of, or to another owner of the memory. It runs no Python code.
#[inline]
pub(super) fn is_referenced_elsewhere(array: &Bound<'_, PyAny>) -> bool {
    // SAFETY: the array is alive.
    unsafe { Py_REFCNT(array.as_ptr()) > 1 || is_base_referenced(array.py(), array.as_ptr()) }
}

/// # Safety
/// The object is alive.
#[cold]
unsafe fn is_base_referenced(py: Python<'_>, object: *mut PyObject) -> bool {
    // SAFETY: the caller's promise; only the object's type is read.
    if unsafe { PyObject_TypeCheck(object, ndarray_type(py)) } == 0 {
        return true;
    }
    // SAFETY: it is an array, so its struct is a `PyArrayObject`.
    let base = unsafe { (*object.cast::<PyArrayObject>()).fields.base };
    // SAFETY: an array owns a reference to its base, if it has one.
    !base.is_null() && unsafe { Py_REFCNT(base) > 1 || is_base_referenced(py, base) }
}

/// An array as it is now. It is valid as long as the interpreter is held and no Python code runs.
///
/// The code that keeps a view, or an address from one, makes sure of that. A reference to the array would not be enough: an array can
/// be given other memory while it is referenced.
#[derive(Clone, Copy)]
pub(super) struct ArrayView<'a> {
    address: *mut u8,
    dtype: Option<Dtype>,
    shape: &'a [isize],
    strides: &'a [isize],
    /// Bytes per unit of `strides`: 1 for NumPy, the size of an element for tensors.
    stride_unit: isize,
    is_complex: bool,
    is_writeable: bool,
    is_tensor: bool,
    /// NumPy's flags of C and Fortran contiguity.
    contiguity: i32,
    /// The format of a tensor of signed integers.
    int_format: Option<IntFormat>,
}

impl<'a> ArrayView<'a> {
    /// The view of a tensor without memory.
    const WITHOUT_MEMORY: Self = Self {
        address: ptr::null_mut(),
        dtype: None,
        shape: &[],
        strides: &[],
        stride_unit: 1,
        is_complex: false,
        is_writeable: false,
        is_tensor: true,
        contiguity: 0,
        int_format: None,
    };

    /// The view of an object; `None` if it is no array of this kind. It runs no Python code.
    #[inline(always)]
    pub(super) fn of(object: &'a Bound<'_, PyAny>, kind: ArrayKind) -> Option<Self> {
        match kind {
            ArrayKind::NumPy => Self::of_numpy(object),
            ArrayKind::Tensors(api) => match api.describe(object) {
                // SAFETY: the description is that of the object, which lives for 'a.
                Some(description) => Some(unsafe { Self::of_tensor(&description) }),
                None => api.is_tensor(object).then_some(Self::WITHOUT_MEMORY),
            },
        }
    }

    #[inline]
    fn of_numpy(object: &'a Bound<'_, PyAny>) -> Option<Self> {
        let is_plain = is_exact(object) || (is_numpy(object).then(|| PLAIN.contains(object))?);
        // SAFETY: it is a NumPy array.
        let fields = unsafe { &struct_of(object).fields };
        // SAFETY: an array always has a descriptor.
        let descriptor = unsafe { &(*fields.descr).fields };
        let native = if cfg!(target_endian = "little") { b'<' } else { b'>' };
        // C's `char` is signed on some platforms and unsigned on others.
        let [byteorder] = descriptor.byteorder.to_ne_bytes();
        let dtype = match descriptor.type_num {
            _ if !is_plain || (byteorder != b'=' && byteorder != native) => None,
            n if n == NPY_TYPES::NPY_FLOAT as i32 => Some(Dtype::F32),
            n if n == NPY_TYPES::NPY_DOUBLE as i32 => Some(Dtype::F64),
            _ => None,
        };
        // SAFETY: NumPy keeps `nd` lengths and strides there.
        let axes = |first: *const isize| unsafe { slice_of(first, fields.nd) };
        Some(Self {
            address: fields.data.cast(),
            dtype,
            shape: axes(fields.dimensions),
            strides: axes(fields.strides),
            stride_unit: 1,
            is_complex: false,
            is_writeable: fields.flags & npyffi::NPY_ARRAY_WRITEABLE != 0,
            is_tensor: false,
            contiguity: fields.flags & (NPY_ARRAY_C_CONTIGUOUS | NPY_ARRAY_F_CONTIGUOUS),
            int_format: None,
        })
    }

    /// # Safety
    /// The description is that of a tensor that lives for 'a, and gets no other shape while the view is used.
    #[inline]
    unsafe fn of_tensor(description: &DLTensor) -> Self {
        // SAFETY: the description has `ndim` numbers there, which the tensor owns, and the caller promised that they stay. `DlpackApi`
        // is only made on 64-bit platforms, where the types are the same.
        let axes = |first: *const i64| unsafe { slice_of(first.cast::<isize>(), description.ndim) };
        let (shape, strides) = (axes(description.shape), axes(description.strides));
        let without_memory = Self { shape, strides, ..Self::WITHOUT_MEMORY };
        // A tensor without elements needs no memory.
        let is_empty = shape.contains(&0);
        let Some(address) = description.address().or(is_empty.then(ptr::dangling_mut)) else { return without_memory };
        let Some((dtype, is_complex)) = description.dtype() else {
            return Self { address, int_format: description.int_format(), ..without_memory };
        };
        Self {
            address,
            dtype: Some(dtype),
            stride_unit: dtype.size().cast_signed() << u8::from(is_complex),
            is_complex,
            is_writeable: true,
            contiguity: contiguity_of(shape, strides),
            ..without_memory
        }
    }

    /// [`ArrayKind::put`] of a tensor.
    fn put(self, address: bool, words: &mut impl Words) -> Option<Located> {
        let dtype = match self.dtype? {
            Dtype::F32 => 0,
            Dtype::F64 => 1,
        };
        let is_same = (!address || words.put([self.address as usize]))
            && words.put([self.shape.len() << 2 | dtype << 1 | usize::from(self.is_complex)])
            && put_axes(self.shape, self.strides, words);
        is_same.then(|| Located { address: self.address, may_be_lazy: self.may_be_lazy() })
    }

    /// Whether it is a tensor without memory in this process.
    #[inline]
    pub(super) fn has_no_memory(self) -> bool {
        self.is_tensor && self.address.is_null()
    }

    /// Whether it may be a lazily conjugated or negated tensor, which `DLPack` does not report. Negated ones are imaginary parts: they
    /// are strided, unless they have one element.
    #[inline]
    pub(super) fn may_be_lazy(self) -> bool {
        self.is_complex || (self.is_tensor && (self.contiguity == 0 || self.len() == 1))
    }

    #[inline]
    pub(super) fn dtype(self) -> Option<Dtype> {
        self.dtype
    }

    #[inline]
    pub(super) fn is_0d(self) -> bool {
        self.shape.is_empty()
    }

    /// The length of each axis, and its stride in bytes. Complex elements have one more axis.
    #[inline]
    pub(super) fn axes(self) -> impl Iterator<Item = (isize, isize)> + Clone {
        let outer = self.shape.iter().zip(self.strides).map(move |(&len, &stride)| (len, stride * self.stride_unit));
        outer.chain(self.is_complex.then_some((2, self.stride_unit / 2)))
    }

    /// The number of elements; complex ones count as two.
    #[inline]
    pub(super) fn len(self) -> usize {
        let elements: usize = self.shape.iter().map(|len| len.unsigned_abs()).product();
        elements << u8::from(self.is_complex)
    }

    #[inline]
    pub(super) fn has_shape_of(self, other: Self) -> bool {
        // Axis by axis: comparing two slices would be a function call.
        self.is_complex == other.is_complex
            && self.shape.len() == other.shape.len()
            && self.shape.iter().zip(other.shape).all(|(len, other)| len == other)
    }

    /// Whether it has the elements of another array, in the same order.
    pub(super) fn has_memory_of(self, other: Self) -> bool {
        let is_same = self.address == other.address && self.strides == other.strides || self.len() == 0;
        is_same && self.has_shape_of(other)
    }

    #[inline]
    pub(super) fn address(self) -> *mut u8 {
        self.address
    }

    #[inline]
    pub(super) fn is_writeable(self) -> bool {
        self.is_writeable
    }

    /// The memory from the first byte of an element to the last one; `None` without elements.
    #[inline]
    pub(super) fn span(self, dtype: Dtype) -> Option<Span> {
        let start = self.address as usize;
        let size = dtype.size();
        if self.contiguity != 0 {
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

    /// A hash of shape and strides, with a random key, so that nobody can construct a collision.
    fn pattern(self) -> u64 {
        static KEYS: OnceLock<RandomState> = OnceLock::new();
        KEYS.get_or_init(RandomState::new).hash_one((self.shape, self.strides, self.stride_unit, self.is_complex))
    }

    /// Whether the elements fill their span, each once, and no axis runs backwards.
    pub(super) fn is_dense(self, dtype: Dtype) -> bool {
        self.contiguity != 0
            || (self.axes().all(|(len, stride)| stride > 0 || len == 1)
                && self.span(dtype).is_none_or(|span| span.end - span.start == self.len() * dtype.size())
                && !self.overlaps_itself(dtype))
    }

    /// Whether its elements are in the memory order of another array of the same shape.
    #[inline]
    pub(super) fn has_order_of(self, other: Self) -> bool {
        self.contiguity & other.contiguity != 0
            || iter::zip(self.axes(), other.axes()).all(|((len, a), (_, b))| a == b || len == 1)
    }

    /// Whether two elements may share memory: an axis, of those from the fastest to the slowest, does not step over all that the faster
    /// ones reach.
    pub(super) fn overlaps_itself(self, dtype: Dtype) -> bool {
        if self.contiguity != 0 || self.len() == 0 {
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

    /// The one number of an array, whatever its shape; `None` if it has more, or can't be written.
    pub(super) fn number(self) -> Option<NumberPointer> {
        let format = match (self.dtype, self.int_format) {
            (Some(dtype), _) => self.is_writeable.then_some(NumberFormat::Float(dtype)),
            (None, int_format) => int_format.map(NumberFormat::Int),
        };
        let has_one = self.len() == 1 && !self.is_complex;
        format.filter(|_| has_one).map(|format| NumberPointer { address: self.address as usize, format })
    }
}

/// The address of one number, and how it is stored.
#[derive(Clone, Copy)]
pub(super) struct NumberPointer {
    address: usize,
    format: NumberFormat,
}

#[derive(Clone, Copy)]
enum NumberFormat {
    Float(Dtype),
    Int(IntFormat),
}

impl NumberPointer {
    /// # Safety
    /// The array of the number has not moved since it was viewed, and nobody writes it.
    #[expect(clippy::cast_precision_loss, reason = "step counts are below 2⁵³")]
    pub(super) unsafe fn read(self) -> f64 {
        match self.format {
            // SAFETY: the caller's promise.
            NumberFormat::Float(Dtype::F32) => f64::from(unsafe { (self.address as *const f32).read_unaligned() }),
            // SAFETY: as above.
            NumberFormat::Float(Dtype::F64) => unsafe { (self.address as *const f64).read_unaligned() },
            // SAFETY: as above.
            NumberFormat::Int(IntFormat::I32) => f64::from(unsafe { (self.address as *const i32).read_unaligned() }),
            // SAFETY: as above.
            NumberFormat::Int(IntFormat::I64) => unsafe { (self.address as *const i64).read_unaligned() as f64 },
        }
    }

    /// # Safety
    /// The array of the number has not moved since it was viewed, and nobody else uses it.
    #[expect(clippy::cast_possible_truncation, reason = "the format has no more digits")]
    pub(super) unsafe fn write(self, number: f64) {
        match self.format {
            // SAFETY: the caller's promise.
            NumberFormat::Float(Dtype::F32) => unsafe { (self.address as *mut f32).write_unaligned(number as f32) },
            // SAFETY: as above.
            NumberFormat::Float(Dtype::F64) => unsafe { (self.address as *mut f64).write_unaligned(number) },
            // SAFETY: as above.
            NumberFormat::Int(IntFormat::I32) => unsafe { (self.address as *mut i32).write_unaligned(number as i32) },
            // SAFETY: as above.
            NumberFormat::Int(IntFormat::I64) => unsafe { (self.address as *mut i64).write_unaligned(number as i64) },
        }
    }
}

/// `count` numbers from an address on, which may be null if there are none.
///
/// # Safety
/// They are there for as long as the slice is used.
#[inline]
unsafe fn slice_of<'a>(first: *const isize, count: i32) -> &'a [isize] {
    match usize::try_from(count) {
        // SAFETY: the caller's promise.
        Ok(count) if count > 0 => unsafe { slice::from_raw_parts(first, count) },
        _ => &[],
    }
}

/// The flags of contiguity of an array, from its strides in elements.
#[inline]
fn contiguity_of(shape: &[isize], strides: &[isize]) -> i32 {
    if shape.contains(&0) {
        return NPY_ARRAY_C_CONTIGUOUS | NPY_ARRAY_F_CONTIGUOUS;
    }
    let axes = || iter::zip(shape, strides);
    let c = if is_contiguous(axes().rev()) { NPY_ARRAY_C_CONTIGUOUS } else { 0 };
    let f = if is_contiguous(axes()) { NPY_ARRAY_F_CONTIGUOUS } else { 0 };
    c | f
}

/// Whether elements lie without gaps along axes, given from the fastest to the slowest.
#[inline]
fn is_contiguous<'a>(mut axes: impl Iterator<Item = (&'a isize, &'a isize)>) -> bool {
    let mut reach = 1;
    axes.all(|(&len, &stride)| {
        let fits = len == 1 || stride == reach;
        reach *= len;
        fits
    })
}
