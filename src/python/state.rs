//! The state of a parameter.

use std::ptr;

use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

use super::array_view::ArrayKind;
use super::error;
use super::external_state::{ExternalContext, ExternalState};
use crate::engine::{ErasedOptimizer, signature};
use crate::rules;

/// The state of a parameter: its step count, its arrays in the order of their rule, and its average.
pub(super) struct State {
    pub(super) step_count: u64,
    pub(super) names: &'static [&'static str],
    pub(super) arrays: Vec<Py<PyAny>>,
    /// Arrays that the present rule does not use. A hyperparameter chose another rule; if it chooses the one before again, that goes on
    /// with them.
    pub(super) unused: Vec<(&'static str, Py<PyAny>)>,
    /// The average of the weight.
    pub(super) average: Option<Py<PyAny>>,
    /// The number of weights in the average.
    pub(super) average_count: u64,
    /// The mapping in which the owner keeps this state, if there is one.
    pub(super) external: Option<Box<ExternalState>>,
}

/// An array by name of each parameter that has one.
pub(super) type Column = (String, Vec<Option<Py<PyAny>>>);

/// The average's name in a state dict, beside the names of a rule's arrays.
pub(super) const AVERAGE_NAME: &str = "average";

/// The state of a parameter before its first step.
pub(super) static NO_STATE: State = State::NONE;

impl State {
    pub(super) const NONE: Self = Self {
        step_count: 0,
        names: &[],
        arrays: Vec::new(),
        unused: Vec::new(),
        average: None,
        average_count: 0,
        external: None,
    };

    pub(super) fn in_mapping(mapping: &Bound<'_, PyDict>, counts_steps: bool) -> Self {
        Self { external: Some(Box::new(ExternalState::new(mapping, counts_steps))), ..Self::NONE }
    }

    /// States of all parameters, from columns: of each array by name, those of the parameters that have one. The arrays of a parameter must
    /// be the state of some rule, with or without an average.
    pub(super) fn from_columns<'a>(
        step_counts: &[u64],
        average_counts: &[u64],
        mut columns: Vec<Column>,
        parameters: impl ExactSizeIterator<Item = &'a str>,
    ) -> PyResult<Vec<Self>> {
        let count = parameters.len();
        if step_counts.len() != count
            || average_counts.len() != count
            || columns.iter().any(|(_, column)| column.len() != count)
        {
            return Err(error::bad_index(count));
        }
        let average_column = columns.iter().position(|(name, _)| name == AVERAGE_NAME);
        let mut states = Vec::with_capacity(count);
        // Most parameters have arrays of the same names as the one before.
        let (mut present, mut names, mut order) = (vec![false; columns.len()], &[][..], Vec::new());
        for (i, parameter) in parameters.enumerate() {
            if columns.iter().zip(&present).any(|((_, column), &was)| column[i].is_some() != was) {
                present = columns.iter().map(|(_, column)| column[i].is_some()).collect();
                let given = columns.iter().filter(|(name, column)| column[i].is_some() && name != AVERAGE_NAME);
                names = names_of_rule(&given.map(|(name, _)| name.as_str()).collect::<Vec<_>>(), parameter)?;
                order = names.iter().filter_map(|known| columns.iter().position(|(name, _)| name == known)).collect();
            }
            let arrays = order.iter().filter_map(|&column| columns[column].1[i].take()).collect();
            let average = average_column.and_then(|column| columns[column].1[i].take());
            let (step_count, average_count) = (step_counts[i], average_counts[i]);
            states.push(Self { step_count, names, arrays, average, average_count, ..Self::NONE });
        }
        Ok(states)
    }

    /// All arrays by name, also unused ones, with the average.
    pub(super) fn to_arrays<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let dict = PyDict::new(py);
        for (name, array) in self.named_arrays() {
            dict.set_item(name, array)?;
        }
        if let Some(average) = &self.average {
            dict.set_item(AVERAGE_NAME, average)?;
        }
        Ok(dict)
    }

    /// This state for another rule, with an average if that is wanted. It keeps all arrays, also those that the rule does not use;
    /// `make(initial)` returns the others. A state with none of the rule's arrays has a step count of 0.
    pub(super) fn for_rule(
        &self,
        py: Python<'_>,
        rule: &dyn ErasedOptimizer,
        with_average: bool,
        make: impl Fn(f64) -> PyResult<Py<PyAny>>,
    ) -> PyResult<Self> {
        let names = rule.state();
        let mut arrays = Vec::with_capacity(names.len());
        let mut has_any = names.is_empty();
        for (name, initial) in names.iter().zip(rule.initial()) {
            let known = self.array(py, name);
            has_any |= known.is_some();
            arrays.push(known.map_or_else(|| make(initial), Ok)?);
        }
        let (average, average_count) = match &self.average {
            Some(array) => (Some(array.clone_ref(py)), self.average_count),
            None => (with_average.then(|| make(0.0)).transpose()?, 0),
        };
        let unused = self.named_arrays().filter(|(name, _)| !names.contains(name));
        let unused = unused.map(|(name, array)| (name, array.clone_ref(py))).collect();
        let step_count = if has_any { self.step_count } else { 0 };
        Ok(Self { step_count, names, arrays, unused, average, average_count, external: None })
    }

    /// Replaces the state, but for the place where its owner keeps it.
    pub(super) fn replace(&mut self, new: Self) {
        let external = self.external.take();
        *self = Self { external, ..new };
    }

    fn named_arrays(&self) -> impl Iterator<Item = (&'static str, &Py<PyAny>)> {
        let used = self.names.iter().copied().zip(&self.arrays);
        used.chain(self.unused.iter().map(|(name, array)| (*name, array)))
    }

    fn array(&self, py: Python<'_>, name: &str) -> Option<Py<PyAny>> {
        let held = self.named_arrays().find(|(other, _)| *other == name).map(|(_, array)| array.clone_ref(py));
        held.or_else(|| {
            let external = self.external.as_ref()?;
            external.array(py, &PyString::new(py, name)).ok()?.map(Bound::unbind)
        })
    }

    /// Whether the arrays are those of a rule with these names.
    #[inline]
    pub(super) fn is_of(&self, names: &'static [&'static str]) -> bool {
        // The names of a rule mostly are the same memory, which is faster to compare than text.
        ptr::eq(self.names, names) || self.names == names
    }

    /// Finds the arrays of external state, for a rule with arrays of these names and keys. Python code may run: keys are compared, and
    /// counts that can't be used in place are made anew; see [`ExternalCount::find`](super::external_state::ExternalCount::find).
    ///
    /// Returns whether every array is the object that it was.
    pub(super) fn load(
        &mut self,
        py: Python<'_>,
        names: &'static [&'static str],
        keys: &[Py<PyString>],
        trust_format: bool,
        context: ExternalContext<'_>,
    ) -> PyResult<bool> {
        let mut is_same = self.is_of(names);
        let Some(external) = &mut self.external else { return Ok(true) };
        for (k, key) in keys.iter().enumerate() {
            is_same = is_same && external.array(py, key.bind(py))?.is_some_and(|array| array.is(&self.arrays[k]));
        }
        if !is_same {
            let arrays = keys.iter().map(|key| external.array(py, key.bind(py)));
            let arrays = arrays.collect::<PyResult<Option<Vec<_>>>>()?;
            self.names = if arrays.is_some() { names } else { &[] };
            self.arrays = arrays.unwrap_or_default().into_iter().map(Bound::unbind).collect();
        }
        if let Some(count) = &mut external.step_count {
            count.find(external.mapping.bind(py), intern!(py, "step"), trust_format, context)?;
        }
        if context.has_average {
            self.average = external.array(py, intern!(py, AVERAGE_NAME))?.map(Bound::unbind);
            let count = &mut external.average_count;
            count.find(external.mapping.bind(py), intern!(py, "averaged"), trust_format, context)?;
        }
        Ok(is_same && !external.has_new_counts())
    }

    /// Reads the external counts that [`load`](Self::load) found. It runs no Python code. Returns false if one can't be read.
    pub(super) fn read_counts(&mut self, py: Python<'_>, context: ExternalContext<'_>) -> bool {
        let Some(external) = &mut self.external else { return true };
        let step_count = match &mut external.step_count {
            Some(count) => count.read(py, context.kind),
            None => Some(u64::from(!self.arrays.is_empty())),
        };
        let average_count =
            if context.has_average { external.average_count.read(py, context.kind) } else { Some(self.average_count) };
        if let Some((step_count, average_count)) = step_count.zip(average_count) {
            (self.step_count, self.average_count) = (step_count, average_count);
            return true;
        }
        false
    }

    /// Stores the counts in external state, and with `is_new` the arrays. With a kind, the arrays of counts are located again.
    ///
    /// # Safety
    /// Without a kind, the interpreter was held and no Python code ran since the counts were [read](Self::read_counts).
    pub(super) unsafe fn store(&mut self, py: Python<'_>, is_new: bool, kind: Option<ArrayKind>) -> PyResult<()> {
        let Some(external) = &mut self.external else { return Ok(()) };
        let mapping = external.mapping.bind(py);
        if is_new {
            for (name, array) in self.names.iter().zip(&self.arrays) {
                mapping.set_item(name, array)?;
            }
            if let Some(average) = &self.average {
                mapping.set_item(intern!(py, AVERAGE_NAME), average)?;
            }
        }
        if let Some(count) = &mut external.step_count {
            // SAFETY: the caller's promise.
            unsafe { count.write(mapping, intern!(py, "step"), self.step_count, kind)? };
        }
        if self.average.is_some() {
            // SAFETY: the caller's promise.
            unsafe { external.average_count.write(mapping, intern!(py, "averaged"), self.average_count, kind)? };
        }
        Ok(())
    }

    pub(super) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.named_arrays().map(|(_, array)| array).chain(&self.average).try_for_each(|array| visit.call(array))?;
        self.external.as_ref().map_or(Ok(()), |external| external.traverse(visit))
    }
}

/// The names of the state of the rule that has these, in its order.
fn names_of_rule(given: &[&str], parameter: &str) -> PyResult<&'static [&'static str]> {
    let of_rule = |rule: &&str| signature(rule).map_or(&[][..], |signature| signature.state);
    let is_given = |names: &&[&str]| names.len() == given.len() && given.iter().all(|name| names.contains(name));
    rules::NAMES.iter().map(of_rule).find(is_given).ok_or_else(|| error::state_of_no_rule(parameter, given))
}
