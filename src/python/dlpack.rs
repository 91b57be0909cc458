//! Tensors of another library, read through the C functions that `DLPack` 1.3 has it offer: addresses, shapes and strides
//! without a call of Python, and without a view that would have to be made and freed.

use std::ffi::{c_int, c_void};
use std::mem::MaybeUninit;
use std::ptr;

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyCapsule, PyType};

use super::buffers::Whole;
use super::error;
use super::known::KnownTypes;
use crate::engine::Dtype;

/// The library's tensors, and how they are read.
pub(super) struct Exchange {
    kind: Py<PyType>,
    read: Read,
    /// What the type has where a subclass may say that operations on it are its own.
    dispatch: Option<Py<PyAny>>,
    /// Subclasses that don't.
    plain: KnownTypes,
    /// `storage_offset` as the library's own type has it, and the guard within which it calls no function of a subclass.
    offset: Py<PyAny>,
    guard: Py<PyAny>,
}

/// `DLPackDLTensorFromPyObjectNoSync`: fills in a description of a tensor, whose library goes on to own all that it points to.
/// Returns 0, or sets an error.
type Read = unsafe extern "C" fn(*mut c_void, *mut Description) -> c_int;

/// `DLPackExchangeAPI`
#[repr(C)]
struct Functions {
    major: u32,
    minor: u32,
    older: *const c_void,
    allocate: *const c_void,
    managed_of: *const c_void,
    to_object: *const c_void,
    read: Option<Read>,
    stream: *const c_void,
}

/// `DLTensor`
#[repr(C)]
pub(super) struct Description {
    data: *mut u8,
    device: c_int,
    device_number: i32,
    pub(super) axes: i32,
    code: u8,
    bits: u8,
    lanes: u16,
    pub(super) shape: *const i64,
    pub(super) strides: *const i64,
    byte_offset: u64,
}

const CPU: c_int = 1;
const INT: u8 = 0;
const FLOAT: u8 = 2;
const COMPLEX: u8 = 5;
const VERSION: u32 = 1;

impl Exchange {
    /// The functions for a type of tensors. There is one such type in a process.
    pub(super) fn of(kind: &Bound<'_, PyType>) -> PyResult<&'static Self> {
        static KNOWN: PyOnceLock<Exchange> = PyOnceLock::new();
        let py = kind.py();
        let known = KNOWN.get_or_try_init(py, || {
            let capsule = kind.getattr("__dlpack_c_exchange_api__").map_err(|_| error::no_exchange(kind))?;
            let capsule = capsule.cast_into::<PyCapsule>().map_err(|_| error::no_exchange(kind))?;
            let functions = capsule.pointer_checked(Some(c"dlpack_exchange_api"))?;
            // SAFETY: a capsule of this name holds such a structure, which lives as long as the process.
            let functions = unsafe { functions.cast::<Functions>().as_ref() };
            match functions.read {
                Some(read) if functions.major == VERSION && usize::BITS == i64::BITS => {
                    let dispatch = kind.getattr(intern!(py, "__torch_dispatch__")).ok().map(Bound::unbind);
                    let internals = py.import("torch")?.getattr("_C")?;
                    let offset = internals.getattr("TensorBase")?.getattr("storage_offset")?.unbind();
                    let guard = internals.getattr("DisableTorchFunction")?.unbind();
                    let (kind, plain) = (kind.clone().unbind(), KnownTypes::new());
                    Ok(Self { kind, read, dispatch, plain, offset, guard })
                }
                _ => Err(error::no_exchange(kind)),
            }
        })?;
        if known.kind.is(kind) { Ok(known) } else { Err(error::no_exchange(kind)) }
    }

    #[inline]
    pub(super) fn is_tensor(&self, object: &Bound<'_, PyAny>) -> bool {
        // SAFETY: both are alive; types alone are looked at. `isinstance` would ask the type, which may answer in Python.
        unsafe { pyo3::ffi::PyObject_TypeCheck(object.as_ptr(), self.kind.as_ptr().cast()) != 0 }
    }

    /// Whether it is a tensor of which it is known that a description can be had without running Python code.
    #[inline]
    fn is_plain(&self, object: &Bound<'_, PyAny>) -> bool {
        object.get_type_ptr().cast() == self.kind.as_ptr() || self.plain.contains(object)
    }

    /// Finds out whether descriptions of objects of a type can be had without running Python code. That may run some.
    #[inline]
    pub(super) fn learn(&self, object: &Bound<'_, PyAny>) {
        if !self.is_plain(object) && self.is_tensor(object) {
            let kind = object.get_type();
            let dispatch = kind.getattr(intern!(object.py(), "__torch_dispatch__")).ok();
            let same = match (&dispatch, &self.dispatch) {
                (Some(own), Some(plain)) => own.is(plain),
                (own, plain) => own.is_none() && plain.is_none(),
            };
            if same {
                self.plain.add(kind);
            }
        }
    }

    /// The description of a tensor; `None` if it has no memory to describe, or if only its own code could say which, or might: see
    /// [`learn`](Self::learn). It runs no Python code.
    #[inline]
    pub(super) fn describe(&self, object: &Bound<'_, PyAny>) -> Option<Description> {
        if !self.is_plain(object) {
            return None;
        }
        let mut description = MaybeUninit::uninit();
        // SAFETY: the object is a tensor, as `is_plain` says, which the function takes, and there is room for what it fills in.
        if unsafe { (self.read)(object.as_ptr().cast(), description.as_mut_ptr()) } != 0 {
            drop(PyErr::take(object.py()));
            return None;
        }
        // SAFETY: the function has filled it in, and says so.
        let mut description = unsafe { description.assume_init() };
        if (description.data as usize) < LOW && self.is_freed(object, &description) {
            description.data = ptr::null_mut();
            description.byte_offset = 0;
        }
        Some(description)
    }

    /// Whether a tensor lies at its offset, counted from null: then its memory was freed.
    ///
    /// Only compiled code runs. The function is the library's own, and within the guard it asks neither the tensor's class nor a mode
    /// that is in force; and no collection of garbage begins, which would run finalizers.
    #[cold]
    fn is_freed(&self, object: &Bound<'_, PyAny>, description: &Description) -> bool {
        let (py, bytes) = (object.py(), usize::from(description.bits / 8) * usize::from(description.lanes));
        let offset = || {
            let guard = self.guard.bind(py).call0()?;
            guard.call_method0(intern!(py, "__enter__"))?;
            let offset = self.offset.bind(py).call1((object,)).and_then(|offset| offset.extract::<usize>());
            guard.call_method1(intern!(py, "__exit__"), (py.None(), py.None(), py.None()))?;
            offset
        };
        // SAFETY: the interpreter is held.
        let collects = unsafe { pyo3::ffi::PyGC_Disable() } != 0;
        let is_freed = offset().map_or(true, |offset| offset.wrapping_mul(bytes) == description.data as usize);
        if collects {
            // SAFETY: as above.
            unsafe { pyo3::ffi::PyGC_Enable() };
        }
        is_freed
    }
}

/// Hardly any memory has addresses below this, but a tensor whose memory was freed lies where its offset is, counted from null.
const LOW: usize = 1 << 32;

impl Description {
    /// Where the first element lies, if that is in the memory of this process.
    #[inline]
    pub(super) fn address(&self) -> Option<*mut u8> {
        const NULL_PAGE: usize = 4096;
        let offset = usize::try_from(self.byte_offset).ok()?;
        let address = self.data.wrapping_add(offset);
        (self.device == CPU && address as usize >= NULL_PAGE).then_some(address)
    }

    /// The format of the numbers, and whether each element is two of them.
    #[inline]
    pub(super) fn dtype(&self) -> Option<(Dtype, bool)> {
        match (self.code, self.bits, self.lanes) {
            (FLOAT, 32, 1) => Some((Dtype::F32, false)),
            (FLOAT, 64, 1) => Some((Dtype::F64, false)),
            (COMPLEX, 64, 1) => Some((Dtype::F32, true)),
            (COMPLEX, 128, 1) => Some((Dtype::F64, true)),
            _ => None,
        }
    }

    /// The format of the numbers, if they are signed whole ones.
    #[inline]
    pub(super) fn whole(&self) -> Option<Whole> {
        match (self.code, self.bits, self.lanes) {
            (INT, 32, 1) => Some(Whole::I32),
            (INT, 64, 1) => Some(Whole::I64),
            _ => None,
        }
    }
}
