//! Tensors of another library, read through the C functions that `DLPack` 1.3 has it offer: addresses, shapes and strides
//! without a call of Python, and without a view that would have to be made and freed.

use std::ffi::{c_int, c_void};
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicPtr, Ordering};

use pyo3::ffi::PyTypeObject;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyCapsule, PyType};

use super::buffers::Whole;
use super::error;
use crate::engine::Dtype;

/// The library's tensors, and how they are read.
pub(super) struct Exchange {
    kind: Py<PyType>,
    read: Read,
    /// What the type has where a subclass may say that operations on it are its own.
    dispatch: Option<Py<PyAny>>,
    /// Subclasses that don't, and the one of them that was asked for last.
    plain: Mutex<Vec<Py<PyType>>>,
    last: AtomicPtr<PyTypeObject>,
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
                    let (plain, last) = (Mutex::default(), AtomicPtr::default());
                    Ok(Self { kind: kind.clone().unbind(), read, dispatch, plain, last })
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

    /// Whether it is a tensor of which a description can be had without running Python code.
    #[inline]
    fn is_plain(&self, object: &Bound<'_, PyAny>) -> bool {
        let kind = object.get_type_ptr();
        kind.cast() == self.kind.as_ptr() || kind == self.last.load(Ordering::Relaxed) || self.is_plain_subclass(object)
    }

    #[cold]
    fn is_plain_subclass(&self, object: &Bound<'_, PyAny>) -> bool {
        if !self.is_tensor(object) {
            return false;
        }
        let (py, kind) = (object.py(), object.get_type());
        let Ok(mut plain) = self.plain.lock() else { return false };
        if !plain.iter().any(|known| known.is(&kind)) {
            let dispatch = kind.getattr(intern!(py, "__torch_dispatch__")).ok();
            let same = match (&dispatch, &self.dispatch) {
                (Some(own), Some(plain)) => own.is(plain),
                (own, plain) => own.is_none() && plain.is_none(),
            };
            if !same {
                return false;
            }
            // It is kept, so that no other type can come to lie where it lies.
            plain.push(kind.unbind());
        }
        self.last.store(object.get_type_ptr(), Ordering::Relaxed);
        true
    }

    /// The description of a tensor; `None` if it has no memory to describe, or only its own code could say which.
    #[inline]
    pub(super) fn describe(&self, object: &Bound<'_, PyAny>) -> Option<Description> {
        if !self.is_plain(object) {
            return None;
        }
        let mut description = MaybeUninit::uninit();
        // SAFETY: the object is one of those that the function takes, and there is room for what it fills in.
        if unsafe { (self.read)(object.as_ptr().cast(), description.as_mut_ptr()) } != 0 {
            drop(PyErr::take(object.py()));
            return None;
        }
        // SAFETY: the function has filled it in, and says so.
        let mut description = unsafe { description.assume_init() };
        if (description.data as usize) < LOW && is_freed(object, &description) {
            description.data = ptr::null_mut();
            description.byte_offset = 0;
        }
        Some(description)
    }
}

/// Hardly any memory has addresses below this, but a tensor whose memory was freed lies where its offset is, counted from null.
const LOW: usize = 1 << 32;

#[cold]
fn is_freed(object: &Bound<'_, PyAny>, description: &Description) -> bool {
    let bytes = usize::from(description.bits / 8) * usize::from(description.lanes);
    let number = |of: &Bound<'_, PyAny>, method| of.call_method0(method)?.extract::<usize>();
    let is_at_its_offset = || Ok::<_, PyErr>(number(object, "storage_offset")? * bytes == description.data as usize);
    let has_none = || Ok::<_, PyErr>(number(&object.call_method0("untyped_storage")?, "data_ptr")? == 0);
    is_at_its_offset().unwrap_or(true) && has_none().unwrap_or(true)
}

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
