//! A set of types whose objects can be read without running Python code.

use std::ptr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicPtr, Ordering};

use pyo3::ffi::PyTypeObject;
use pyo3::prelude::*;
use pyo3::types::PyType;

/// A set of types. A lookup runs no Python code, so it is allowed while memory is read. Finding out whether a type belongs to the set
/// may run some, and is done before.
pub(super) struct KnownTypes {
    all: Mutex<Vec<Py<PyType>>>,
    /// The type of the last successful lookup.
    last: AtomicPtr<PyTypeObject>,
}

impl KnownTypes {
    pub(super) const fn new() -> Self {
        Self { all: Mutex::new(Vec::new()), last: AtomicPtr::new(ptr::null_mut()) }
    }

    /// Whether the set has the object's type.
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

    /// Adds a type, and keeps it alive, so that no other type gets its address.
    pub(super) fn add(&self, kind: Bound<'_, PyType>) {
        if let Ok(mut all) = self.all.lock()
            && !all.iter().any(|known| known.is(&kind))
        {
            all.push(kind.unbind());
        }
    }
}
