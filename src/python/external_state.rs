//! State in a mapping of its owner: arrays and counts by name, as PyTorch's optimizers keep it.
//!
//! The mapping is authoritative. A step loads it, since any entry may have been replaced, and stores what it creates.

use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

use super::array_view::{ArrayKind, ArrayView, NumberPointer};
use crate::engine::Dtype;

/// The mapping with the state of one parameter.
pub(super) struct ExternalState {
    pub(super) mapping: Py<PyDict>,
    /// The parameter's step count; `None` if the mapping has none.
    pub(super) step_count: Option<ExternalCount>,
    pub(super) average_count: ExternalCount,
}

/// A count in a mapping: an array of one number.
#[derive(Default)]
pub(super) struct ExternalCount {
    array: Option<Py<PyAny>>,
    /// Whether the array is still to be put into the mapping.
    is_new: bool,
    pointer: Option<NumberPointer>,
}

/// What is needed to load external state.
#[derive(Clone, Copy)]
pub(super) struct ExternalContext<'a> {
    pub(super) kind: ArrayKind,
    /// `make_count(value)` returns an array of one number.
    pub(super) make_count: &'a Py<PyAny>,
    /// Whether the optimizer has an average.
    pub(super) has_average: bool,
}

impl ExternalState {
    pub(super) fn new(mapping: &Bound<'_, PyDict>, counts_steps: bool) -> Self {
        let step_count = counts_steps.then(ExternalCount::default);
        Self { mapping: mapping.clone().unbind(), step_count, average_count: ExternalCount::default() }
    }

    /// Whether a count is still to be put into the mapping.
    pub(super) fn has_new_counts(&self) -> bool {
        self.average_count.is_new || self.step_count.as_ref().is_some_and(|count| count.is_new)
    }

    /// The array under a key; None stands for no array.
    pub(super) fn array<'py>(
        &self,
        py: Python<'py>,
        key: &Bound<'py, PyString>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        Ok(self.mapping.bind(py).get_item(key)?.filter(|array| !array.is_none()))
    }

    pub(super) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.mapping)?;
        visit.call(&self.average_count.array)?;
        self.step_count.as_ref().map_or(Ok(()), |count| visit.call(&count.array))
    }
}

impl ExternalCount {
    /// Looks up the array of the count. It makes one if there is none that can be read and written in place. With `trust_format`, an
    /// array that is the same object as in the last step is not checked again.
    #[expect(clippy::cast_precision_loss, reason = "step counts are below 2⁵³")]
    pub(super) fn find(
        &mut self,
        mapping: &Bound<'_, PyDict>,
        key: &Bound<'_, PyString>,
        trust_format: bool,
        context: ExternalContext<'_>,
    ) -> PyResult<()> {
        let given = mapping.get_item(key)?;
        let is_same = given.as_ref().is_some_and(|given| self.array.as_ref().is_some_and(|held| held.is(given)));
        if is_same && trust_format && !self.is_new {
            return Ok(());
        }
        if let Some(array) = &given {
            context.kind.learn(array)?;
            if count_in(array, context.kind).is_some() {
                self.array = Some(array.clone().unbind());
                self.is_new = false;
                return Ok(());
            }
        }
        // Converted to a count first: NaN becomes 0.
        let count = to_count(given.map_or(Ok(0.0), |number| number.extract::<f64>())?);
        self.array = Some(context.make_count.call1(mapping.py(), (count as f64,))?);
        self.is_new = true;
        Ok(())
    }

    /// Reads the count that was found, and remembers its address. It runs no Python code.
    pub(super) fn read(&mut self, py: Python<'_>, kind: ArrayKind) -> Option<u64> {
        let (count, pointer) = count_in(self.array.as_ref()?.bind(py), kind)?;
        self.pointer = Some(pointer);
        Some(to_count(count))
    }

    /// Writes the count, and puts its array into the mapping if it is new. With a kind, the array is located again.
    ///
    /// # Safety
    /// Without a kind, the interpreter was held and no Python code ran since the count was [read](Self::read).
    #[expect(clippy::cast_precision_loss, reason = "step counts are below 2⁵³")]
    pub(super) unsafe fn write(
        &mut self,
        mapping: &Bound<'_, PyDict>,
        key: &Bound<'_, PyString>,
        count: u64,
        kind: Option<ArrayKind>,
    ) -> PyResult<()> {
        let Some(array) = &self.array else { return Ok(()) };
        let array = array.bind(mapping.py());
        if self.is_new {
            mapping.set_item(key, array)?;
            self.is_new = false;
        }
        if let Some(kind) = kind {
            self.pointer = ArrayView::of(array, kind).and_then(ArrayView::number);
        }
        if let Some(pointer) = self.pointer {
            // SAFETY: the array was located just now, or by the caller's promise nothing could move it since. The interpreter is held, so
            // nobody else uses it.
            unsafe { pointer.write(count as f64) };
        }
        Ok(())
    }
}

/// The number that an array has, and its address, if steps can be counted in its format.
fn count_in(array: &Bound<'_, PyAny>, kind: ArrayKind) -> Option<(f64, NumberPointer)> {
    /// Every count up to this is a `float32`.
    const MAX_F32: f64 = 16_777_216.0;
    let view = ArrayView::of(array, kind)?;
    let pointer = view.number()?;
    // SAFETY: the array was viewed just now, and the interpreter is held.
    let count = unsafe { pointer.read() };
    (view.dtype() != Some(Dtype::F32) || count < MAX_F32).then_some((count, pointer))
}

/// A count from any number.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is clamped, and NaN becomes 0")]
fn to_count(number: f64) -> u64 {
    number.clamp(0.0, 9_007_199_254_740_992.0) as u64
}
