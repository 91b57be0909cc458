//! PyTorch's tensors, described by the C functions of [DLPack 1.3](https://dmlc.github.io/dlpack/latest/c_api.html).
//!
//! They give a tensor's address, shape and strides without a call of Python, and without a NumPy view to make and free.

use std::ffi::{c_int, c_void};
use std::mem::MaybeUninit;
use std::ptr;

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyCapsule, PyType};

use super::error;
use super::known_types::KnownTypes;
use crate::engine::Dtype;

/// A type of tensors, with its C functions.
pub(super) struct DlpackApi {
    tensor_type: Py<PyType>,
    describe: DescribeTensor,
    /// The type's `__torch_dispatch__`. A subclass with another one has operations of its own.
    dispatch: Option<Py<PyAny>>,
    /// Subclasses without operations of their own.
    plain: KnownTypes,
    /// `TensorBase.storage_offset`, and the guard in which it calls no function of a subclass.
    storage_offset: Py<PyAny>,
    guard: Py<PyAny>,
}

/// `DLPackDLTensorFromPyObjectNoSync`: describes a tensor, which keeps all that the description points to. Returns 0, or sets a Python
/// error.
type DescribeTensor = unsafe extern "C" fn(*mut c_void, *mut DLTensor) -> c_int;

/// `DLPackExchangeAPI`
#[repr(C)]
struct ExchangeApi {
    major: u32,
    minor: u32,
    prev_api: *const c_void,
    managed_tensor_allocator: *const c_void,
    managed_tensor_from_py_object: *const c_void,
    managed_tensor_to_py_object: *const c_void,
    dltensor_from_py_object: Option<DescribeTensor>,
    current_work_stream: *const c_void,
}

/// `DLTensor`
#[repr(C)]
pub(super) struct DLTensor {
    data: *mut u8,
    device_type: c_int,
    device_id: i32,
    pub(super) ndim: i32,
    code: u8,
    bits: u8,
    lanes: u16,
    pub(super) shape: *const i64,
    pub(super) strides: *const i64,
    byte_offset: u64,
}

/// Formats of signed integers, which only step counts may have.
#[derive(Clone, Copy)]
pub(super) enum IntFormat {
    I32,
    I64,
}

const CPU: c_int = 1;
const INT: u8 = 0;
const FLOAT: u8 = 2;
const COMPLEX: u8 = 5;
const VERSION: u32 = 1;

/// Addresses below this may be those of freed memory: such a tensor has its offset as its address. Other memory is hardly ever there.
const LOW: usize = 1 << 32;

impl DlpackApi {
    /// The C functions of a type of tensors. A process has one such type.
    pub(super) fn of(tensor_type: &Bound<'_, PyType>) -> PyResult<&'static Self> {
        static KNOWN: PyOnceLock<DlpackApi> = PyOnceLock::new();
        let py = tensor_type.py();
        let unsupported = || error::no_dlpack_api(tensor_type);
        let known = KNOWN.get_or_try_init(py, || {
            let capsule = tensor_type.getattr("__dlpack_c_exchange_api__").map_err(|_| unsupported())?;
            let capsule = capsule.cast_into::<PyCapsule>().map_err(|_| unsupported())?;
            let api = capsule.pointer_checked(Some(c"dlpack_exchange_api"))?;
            // SAFETY: a capsule of this name holds this structure, which lives as long as the process.
            let api = unsafe { api.cast::<ExchangeApi>().as_ref() };
            match api.dltensor_from_py_object {
                Some(describe) if api.major == VERSION && usize::BITS == i64::BITS => {
                    let dispatch = tensor_type.getattr(intern!(py, "__torch_dispatch__")).ok().map(Bound::unbind);
                    let internals = py.import("torch")?.getattr("_C")?;
                    let storage_offset = internals.getattr("TensorBase")?.getattr("storage_offset")?.unbind();
                    let guard = internals.getattr("DisableTorchFunction")?.unbind();
                    let (tensor_type, plain) = (tensor_type.clone().unbind(), KnownTypes::new());
                    Ok(Self { tensor_type, describe, dispatch, plain, storage_offset, guard })
                }
                _ => Err(unsupported()),
            }
        })?;
        if known.tensor_type.is(tensor_type) { Ok(known) } else { Err(unsupported()) }
    }

    #[inline]
    pub(super) fn is_tensor(&self, object: &Bound<'_, PyAny>) -> bool {
        // SAFETY: both are alive, and only types are read. `isinstance` would ask the type, which may answer in Python.
        unsafe { pyo3::ffi::PyObject_TypeCheck(object.as_ptr(), self.tensor_type.as_ptr().cast()) != 0 }
    }

    /// Whether it is a tensor of a type that [`learn`](Self::learn) found to have no operations of its own.
    #[inline]
    fn is_plain(&self, object: &Bound<'_, PyAny>) -> bool {
        object.get_type_ptr().cast() == self.tensor_type.as_ptr() || self.plain.contains(object)
    }

    /// Finds out whether objects of this type can be described without running Python code. It may run some itself.
    #[inline]
    pub(super) fn learn(&self, object: &Bound<'_, PyAny>) {
        if self.is_plain(object) || !self.is_tensor(object) {
            return;
        }
        let subclass = object.get_type();
        let dispatch = subclass.getattr(intern!(object.py(), "__torch_dispatch__")).ok();
        let is_plain = match (&dispatch, &self.dispatch) {
            (Some(own), Some(inherited)) => own.is(inherited),
            (own, inherited) => own.is_none() && inherited.is_none(),
        };
        if is_plain {
            self.plain.add(subclass);
        }
    }

    /// Describes a tensor. It runs no Python code. `None` if the tensor has no memory, or is not of a [known](Self::learn) type.
    #[inline]
    pub(super) fn describe(&self, object: &Bound<'_, PyAny>) -> Option<DLTensor> {
        if !self.is_plain(object) {
            return None;
        }
        let mut description = MaybeUninit::uninit();
        // SAFETY: the object is a tensor of this type, and there is room for its description.
        if unsafe { (self.describe)(object.as_ptr().cast(), description.as_mut_ptr()) } != 0 {
            drop(PyErr::take(object.py()));
            return None;
        }
        // SAFETY: the function returned 0, so it has filled it in.
        let mut description = unsafe { description.assume_init() };
        if (description.data as usize) < LOW && self.is_freed(object, &description) {
            description.data = ptr::null_mut();
            description.byte_offset = 0;
        }
        Some(description)
    }

    /// Whether the memory of a tensor was freed: then its address is its offset.
    ///
    /// Only compiled code runs: the function is the library's own, in the guard it asks neither the tensor's class nor an active mode,
    /// and no garbage collection begins, which would run finalizers.
    #[cold]
    fn is_freed(&self, object: &Bound<'_, PyAny>, description: &DLTensor) -> bool {
        let (py, size) = (object.py(), usize::from(description.bits / 8) * usize::from(description.lanes));
        let offset = || {
            let guard = self.guard.bind(py).call0()?;
            guard.call_method0(intern!(py, "__enter__"))?;
            let offset = self.storage_offset.bind(py).call1((object,)).and_then(|offset| offset.extract::<usize>());
            guard.call_method1(intern!(py, "__exit__"), (py.None(), py.None(), py.None()))?;
            offset
        };
        // SAFETY: the interpreter is held.
        let collects = unsafe { pyo3::ffi::PyGC_Disable() } != 0;
        let is_freed = offset().map_or(true, |offset| offset.wrapping_mul(size) == description.data as usize);
        if collects {
            // SAFETY: as above.
            unsafe { pyo3::ffi::PyGC_Enable() };
        }
        is_freed
    }
}

impl DLTensor {
    /// The address of the first element, if it is in this process's memory.
    #[inline]
    pub(super) fn address(&self) -> Option<*mut u8> {
        const NULL_PAGE: usize = 4096;
        let offset = usize::try_from(self.byte_offset).ok()?;
        let address = self.data.wrapping_add(offset);
        (self.device_type == CPU && address as usize >= NULL_PAGE).then_some(address)
    }

    /// The dtype, and whether elements are complex: two numbers of it.
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

    /// The format of signed integers.
    #[inline]
    pub(super) fn int_format(&self) -> Option<IntFormat> {
        match (self.code, self.bits, self.lanes) {
            (INT, 32, 1) => Some(IntFormat::I32),
            (INT, 64, 1) => Some(IntFormat::I64),
            _ => None,
        }
    }
}
