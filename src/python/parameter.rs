//! One parameter of an optimizer, and how it moves.

use std::ptr;

use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

use super::error;
use super::gradients::Form;
use super::home::Home;
use super::operands::Places;
use super::structure::Place;
use crate::engine::{AVERAGE, ErasedOptimizer, GRAD, STATE, Stages, WEIGHT, signature};
use crate::rules;

/// A parameter: what it is called, and its state.
pub(super) struct Parameter {
    pub(super) place: Place,
    pub(super) group: usize,
    pub(super) state: State,
    /// Whether weight decay acts on it.
    pub(super) decays: bool,
    /// Whether its gradients [may be lazy](super::buffers::Header::may_be_lazy), as far as is known.
    pub(super) may_be_lazy: bool,
}

/// The state of a parameter: how many steps it has seen, and its arrays, in the order of the rule that they are of.
pub(super) struct State {
    pub(super) t: u64,
    pub(super) names: &'static [&'static str],
    pub(super) arrays: Vec<Py<PyAny>>,
    /// Arrays, by name, that the present rule does not use: an edit of a hyperparameter chose another rule, and one that edits
    /// it back goes on with them.
    pub(super) unused: Vec<(&'static str, Py<PyAny>)>,
    /// The average of the weight.
    pub(super) average: Option<Py<PyAny>>,
    /// How many weights the average has seen.
    pub(super) averaged: u64,
    /// Where its owner keeps it, if that is not here alone.
    pub(super) home: Option<Box<Home>>,
}

/// What a state dict calls the average, beside the names of a rule's arrays.
pub(super) const AVERAGE_NAME: &str = "average";

impl State {
    pub(super) const NONE: Self =
        Self { t: 0, names: &[], arrays: Vec::new(), unused: Vec::new(), average: None, averaged: 0, home: None };

    /// This state made into that of another rule, with an average if that is wanted. Arrays that are known stay, also those
    /// that the rule does not use; `make(initial)` gives the others. One that is wholly new has seen no step.
    pub(super) fn turned_into(
        &self,
        py: Python<'_>,
        update: &dyn ErasedOptimizer,
        averages: bool,
        make: impl Fn(f64) -> PyResult<Py<PyAny>>,
    ) -> PyResult<Self> {
        let names = update.state();
        let mut arrays = Vec::with_capacity(names.len());
        let mut kept = names.is_empty();
        for (name, initial) in names.iter().zip(update.initial()) {
            let known = self.array(py, name);
            kept |= known.is_some();
            arrays.push(known.map_or_else(|| make(initial), Ok)?);
        }
        let (average, averaged) = match &self.average {
            Some(array) => (Some(array.clone_ref(py)), self.averaged),
            None => (averages.then(|| make(0.0)).transpose()?, 0),
        };
        let unused = self.known().filter(|(name, _)| !names.contains(name));
        let unused = unused.map(|(name, array)| (name, array.clone_ref(py))).collect();
        Ok(Self { t: if kept { self.t } else { 0 }, names, arrays, unused, average, averaged, home: None })
    }

    /// The arrays with their names, whether the present rule uses them or not.
    fn known(&self) -> impl Iterator<Item = (&'static str, &Py<PyAny>)> {
        let used = self.names.iter().copied().zip(&self.arrays);
        used.chain(self.unused.iter().map(|(name, array)| (*name, array)))
    }

    fn array(&self, py: Python<'_>, name: &str) -> Option<Py<PyAny>> {
        let held = self.known().find(|(other, _)| *other == name);
        held.map(|(_, array)| array.clone_ref(py)).or_else(|| self.at_home(py, name))
    }

    /// Becomes what a step made of it.
    pub(super) fn becomes(&mut self, made: Self) {
        let home = self.home.take();
        *self = Self { home, ..made };
    }

    /// The state that a mapping of names to arrays holds, if these are the states of some rule, with or without an average. What
    /// the rule of the next step does not use is kept by it.
    pub(super) fn from_mapping(t: u64, averaged: u64, arrays: &Bound<'_, PyDict>, parameter: &str) -> PyResult<Self> {
        let mut given: Vec<String> = arrays.keys().extract()?;
        given.retain(|name| name != AVERAGE_NAME);
        let of_rule = |name: &&str| signature(name).map_or(&[][..], |signature| signature.state);
        let is_given =
            |names: &&[&str]| names.len() == given.len() && given.iter().all(|name| names.contains(&&**name));
        let names = rules::NAMES.iter().map(of_rule).find(is_given);
        let names = names.ok_or_else(|| error::state_of_no_rule(parameter, &given))?;
        let array = |name: &&str| Ok(arrays.as_any().get_item(name)?.unbind());
        let average = arrays.get_item(AVERAGE_NAME)?.map(Bound::unbind);
        let arrays = names.iter().map(array).collect::<PyResult<_>>()?;
        Ok(Self { t, names, arrays, average, averaged, ..Self::NONE })
    }

    /// Whether the arrays are those of a rule with these states.
    #[inline]
    pub(super) fn is_of(&self, names: &'static [&'static str]) -> bool {
        // The names of a rule are mostly the same memory, which is quicker to see than that they are the same text.
        ptr::eq(self.names, names) || self.names == names
    }

    pub(super) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.known().map(|(_, array)| array).chain(&self.average).try_for_each(|array| visit.call(array))?;
        self.home.as_ref().map_or(Ok(()), |home| home.traverse(visit))
    }

    pub(super) fn to_dict<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let dict = PyDict::new(py);
        for (name, array) in self.known() {
            dict.set_item(name, array)?;
        }
        if let Some(average) = &self.average {
            dict.set_item(AVERAGE_NAME, average)?;
        }
        Ok(dict)
    }
}

/// How the parameters of a group move; nothing before it is first set.
#[derive(Default)]
pub(super) struct Recipe {
    pub(super) update: Option<(Box<dyn ErasedOptimizer>, Stages)>,
    /// The names of the rule's arrays, as keys of a mapping.
    pub(super) keys: Vec<Py<PyString>>,
}

/// A parameter with the state that it has or is to have, and the form that the structure around it is in.
#[derive(Clone, Copy)]
pub(super) struct Located<'a> {
    pub(super) parameter: &'a Parameter,
    pub(super) state: &'a State,
    pub(super) form: Form,
}

impl Places for Located<'_> {
    fn place(&self, operand: usize) -> String {
        let Parameter { place: Place { name, path }, group, .. } = self.parameter;
        match operand {
            WEIGHT => format!("{}{path}", self.form.params(*group)),
            GRAD => self.form.grad(*group, path),
            AVERAGE => format!("state[{name:?}][{AVERAGE_NAME:?}]"),
            state => format!("state[{name:?}][{:?}]", self.state.names[state - STATE]),
        }
    }
}
