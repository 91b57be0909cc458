//! State that its owner keeps in a mapping of its own: arrays and counts under their names, as PyTorch's optimizers do.
//!
//! The mapping is what holds. It is read before each step, since anything in it may have been replaced, and what a step makes
//! is put into it when the step has been taken.

use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

use super::buffers::{Header, Place, Source};
use super::parameter::{AVERAGE_NAME, State};
use crate::engine::Dtype;

/// Where the state of a parameter is kept.
pub(super) struct Home {
    mapping: Py<PyDict>,
    /// How many steps the parameter has seen, if that is kept; otherwise it is only known whether there were any.
    steps: Option<Counter>,
    averaged: Counter,
}

/// A count in a mapping: an array of one number.
#[derive(Default)]
struct Counter {
    array: Option<Py<PyAny>>,
    /// Whether it is not in the mapping yet.
    fresh: bool,
    place: Option<Place>,
}

/// What a home has to know to be read.
#[derive(Clone, Copy)]
pub(super) struct Terms<'a> {
    pub(super) source: Source,
    /// `make_count(value)` gives an array of one number.
    pub(super) make_count: &'a Py<PyAny>,
    pub(super) averages: bool,
}

impl Home {
    pub(super) fn new(mapping: &Bound<'_, PyDict>, counts_steps: bool) -> Self {
        let steps = counts_steps.then(Counter::default);
        Self { mapping: mapping.clone().unbind(), steps, averaged: Counter::default() }
    }

    /// Whether what a step has made is still to be put into the mapping.
    pub(super) fn is_fresh(&self) -> bool {
        self.averaged.fresh || self.steps.as_ref().is_some_and(|steps| steps.fresh)
    }

    pub(super) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.mapping)?;
        visit.call(&self.averaged.array)?;
        self.steps.as_ref().map_or(Ok(()), |steps| visit.call(&steps.array))
    }
}

impl State {
    /// Looks up the arrays of the state in its home, for a rule with arrays of these names. Python code may run: keys are compared, and
    /// counts that can't be read where they lie are made anew. With `certain`, counts are taken to be as readable as before.
    ///
    /// Returns whether all are the objects that they were.
    pub(super) fn look_up(
        &mut self,
        py: Python<'_>,
        names: &'static [&'static str],
        keys: &[Py<PyString>],
        certain: bool,
        terms: Terms<'_>,
    ) -> PyResult<bool> {
        let Some(home) = &mut self.home else { return Ok(true) };
        let mapping = home.mapping.bind(py);
        let mut held = self.names == names;
        for (k, key) in keys.iter().enumerate() {
            held = held && array_in(mapping, key.bind(py))?.is_some_and(|array| array.is(&self.arrays[k]));
        }
        if !held {
            let found = keys.iter().map(|key| array_in(mapping, key.bind(py))).collect::<PyResult<Option<Vec<_>>>>()?;
            self.names = if found.is_some() { names } else { &[] };
            self.arrays = found.unwrap_or_default().into_iter().map(Bound::unbind).collect();
        }
        if let Some(steps) = &mut home.steps {
            steps.look_up(mapping, intern!(py, "step"), certain, terms)?;
        }
        if terms.averages {
            self.average = array_in(mapping, intern!(py, AVERAGE_NAME))?.map(Bound::unbind);
            home.averaged.look_up(mapping, intern!(py, "averaged"), certain, terms)?;
        }
        Ok(held && !home.is_fresh())
    }

    /// Reads the counts that were looked up, and remembers where they lie. It runs no Python code. Returns false if one can't be
    /// read.
    pub(super) fn read_counts(&mut self, py: Python<'_>, terms: Terms<'_>) -> bool {
        let Some(home) = &mut self.home else { return true };
        let steps = match &mut home.steps {
            Some(steps) => steps.read(py, terms.source),
            None => Some(u64::from(!self.arrays.is_empty())),
        };
        let averaged = if terms.averages { home.averaged.read(py, terms.source) } else { Some(self.averaged) };
        if let Some((steps, averaged)) = steps.zip(averaged) {
            (self.t, self.averaged) = (steps, averaged);
            return true;
        }
        false
    }

    /// Looks for an array in the home.
    pub(super) fn at_home(&self, py: Python<'_>, name: &str) -> Option<Py<PyAny>> {
        let array = self.home.as_ref()?.mapping.bind(py).get_item(name).ok()??;
        (!array.is_none()).then(|| array.unbind())
    }

    /// Puts what a step has made, and its counts, into the home. With a source counts are looked for again.
    ///
    /// # Safety
    /// Without a source, the interpreter was held and no Python code ran since the counts were [read](Self::read_counts).
    pub(super) unsafe fn keep(&mut self, py: Python<'_>, made: bool, source: Option<Source>) -> PyResult<()> {
        let Some(home) = &mut self.home else { return Ok(()) };
        let mapping = home.mapping.bind(py);
        if made {
            for (name, array) in self.names.iter().zip(&self.arrays) {
                mapping.set_item(name, array)?;
            }
            if let Some(average) = &self.average {
                mapping.set_item(intern!(py, AVERAGE_NAME), average)?;
            }
        }
        if let Some(steps) = &mut home.steps {
            // SAFETY: the caller's promise.
            unsafe { steps.store(mapping, intern!(py, "step"), self.t, source)? };
        }
        if self.average.is_some() {
            // SAFETY: the caller's promise.
            unsafe { home.averaged.store(mapping, intern!(py, "averaged"), self.averaged, source)? };
        }
        Ok(())
    }
}

/// What a mapping has under a key, unless that is nothing.
fn array_in<'py>(mapping: &Bound<'py, PyDict>, key: &Bound<'py, PyString>) -> PyResult<Option<Bound<'py, PyAny>>> {
    Ok(mapping.get_item(key)?.filter(|array| !array.is_none()))
}

/// The number that an array is, and where it lies, if counts can be kept there.
fn count_of(array: &Bound<'_, PyAny>, source: Source) -> Option<(f64, Place)> {
    let header = Header::of(array, source)?;
    let count = header.number()?;
    let counts_on = header.dtype() != Some(Dtype::F32) || count < FLOAT32_COUNTS;
    header.place().filter(|_| counts_on).map(|place| (count, place))
}

/// Counts up to this have a number of `float32` each.
const FLOAT32_COUNTS: f64 = 16_777_216.0;

/// A count that someone gave as any number; nobody counts to 2⁵³.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is clamped, and NaN becomes 0")]
fn whole(number: f64) -> u64 {
    number.clamp(0.0, 9_007_199_254_740_992.0) as u64
}

impl Counter {
    /// Looks up the count, and makes one if there is none that can be read and written where it lies.
    #[expect(clippy::cast_precision_loss, reason = "nobody counts to 2⁵³")]
    fn look_up(
        &mut self,
        mapping: &Bound<'_, PyDict>,
        key: &Bound<'_, PyString>,
        certain: bool,
        terms: Terms<'_>,
    ) -> PyResult<()> {
        let given = mapping.get_item(key)?;
        let is_same = given.as_ref().is_some_and(|given| self.array.as_ref().is_some_and(|held| held.is(given)));
        if is_same && certain && !self.fresh {
            return Ok(());
        }
        if let Some(array) = &given {
            terms.source.learn(array)?;
            if count_of(array, terms.source).is_some() {
                self.array = Some(array.clone().unbind());
                self.fresh = false;
                return Ok(());
            }
        }
        // As a count: NaN is none.
        let count = whole(given.map_or(Ok(0.0), |number| number.extract::<f64>())?);
        self.array = Some(terms.make_count.call1(mapping.py(), (count as f64,))?);
        self.fresh = true;
        Ok(())
    }

    /// Reads the count that was looked up, and remembers where it lies. It runs no Python code.
    fn read(&mut self, py: Python<'_>, source: Source) -> Option<u64> {
        let (count, place) = count_of(self.array.as_ref()?.bind(py), source)?;
        self.place = Some(place);
        Some(whole(count))
    }

    /// # Safety
    /// Without a source, the interpreter was held and no Python code ran since the count was [read](Self::read).
    #[expect(clippy::cast_precision_loss, reason = "nobody counts to 2⁵³")]
    unsafe fn store(
        &mut self,
        mapping: &Bound<'_, PyDict>,
        key: &Bound<'_, PyString>,
        count: u64,
        source: Option<Source>,
    ) -> PyResult<()> {
        let Some(array) = &self.array else { return Ok(()) };
        let array = array.bind(mapping.py());
        if self.fresh {
            mapping.set_item(key, array)?;
            self.fresh = false;
        }
        if let Some(source) = source {
            self.place = Header::of(array, source).and_then(Header::place);
        }
        if let Some(place) = &self.place {
            // SAFETY: it was read from the array just now, or as the caller promised nobody could move it since. Nobody else uses it: the
            // interpreter is held.
            unsafe { place.set(count as f64) };
        }
        Ok(())
    }
}
