//! Types of which it is known that their objects can be read without running Python code.

use std::ptr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicPtr, Ordering};

use pyo3::ffi::PyTypeObject;
use pyo3::prelude::*;
use pyo3::types::PyType;

/// A set of types. To look for one runs no Python code, so it can be done while memory is read; to find out whether one belongs to it
/// may, and is done before.
pub(super) struct KnownTypes {
    all: Mutex<Vec<Py<PyType>>>,
    /// The one that was asked for last.
    last: AtomicPtr<PyTypeObject>,
}

impl KnownTypes {
    pub(super) const fn new() -> Self {
        Self { all: Mutex::new(Vec::new()), last: AtomicPtr::new(ptr::null_mut()) }
    }

    /// Whether the object's type is among them.
    #[inline]
    pub(super) fn contains(&self, object: &Bound<'_, PyAny>) -> bool {
        object.get_type_ptr() == self.last.load(Ordering::Relaxed) || self.find(object)
    }

    #[cold]
    fn find(&self, object: &Bound<'_, PyAny>) -> bool {
        let kind = object.get_type_ptr();
        let found = self.all.lock().is_ok_and(|all| all.iter().any(|known| known.as_ptr().cast() == kind));
        if found {
            self.last.store(kind, Ordering::Relaxed);
        }
        found
    }

    /// Adds a type. It is kept, so that no other can come to lie where it lies.
    pub(super) fn add(&self, kind: Bound<'_, PyType>) {
        if let Ok(mut all) = self.all.lock()
            && !all.iter().any(|known| known.is(&kind))
        {
            all.push(kind.unbind());
        }
    }
}
