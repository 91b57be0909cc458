//! One parameter of an optimizer, and how it moves.

use std::ptr;

use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::error;
use super::gradients::Form;
use super::operands::Places;
use super::structure::Place;
use crate::engine::{Describe, GRAD, STATE, Stages, Update, WEIGHT};
use crate::rules;

/// A parameter: what it is called, and its state.
pub(super) struct Parameter {
    pub(super) place: Place,
    pub(super) group: usize,
    pub(super) state: State,
}

/// The state of a parameter: how many steps it has seen, and its arrays, in the order of the rule that they are of.
pub(super) struct State {
    pub(super) t: u64,
    names: &'static [&'static str],
    pub(super) arrays: Vec<Py<PyAny>>,
}

impl State {
    pub(super) const NONE: Self = Self { t: 0, names: &[], arrays: Vec::new() };

    /// This state made into that of another rule. Arrays that both have stay; `make(initial)` gives the others. One that is
    /// wholly new has seen no step.
    pub(super) fn turned_into(
        &self,
        py: Python<'_>,
        update: &dyn Update,
        make: impl Fn(f64) -> PyResult<Py<PyAny>>,
    ) -> PyResult<Self> {
        let names = update.state();
        let mut arrays = Vec::with_capacity(names.len());
        let mut kept = names.is_empty();
        for (name, initial) in names.iter().zip(update.initial()) {
            let known = self.names.iter().position(|other| other == name).and_then(|at| self.arrays.get(at));
            kept |= known.is_some();
            arrays.push(known.map_or_else(|| make(initial), |array| Ok(array.clone_ref(py)))?);
        }
        Ok(Self { t: if kept { self.t } else { 0 }, names, arrays })
    }

    /// The state that a mapping of names to arrays holds, if these are the states of some rule.
    pub(super) fn from_mapping(t: u64, arrays: &Bound<'_, PyDict>, parameter: &str) -> PyResult<Self> {
        let given: Vec<String> = arrays.keys().extract()?;
        let of_rule = |name: &&str| rules::find(name, Describe).map_or(&[][..], |signature| signature.state);
        let is_given =
            |names: &&[&str]| names.len() == given.len() && given.iter().all(|name| names.contains(&&**name));
        let names = rules::NAMES.iter().map(of_rule).find(is_given);
        let names = names.ok_or_else(|| error::state_of_no_rule(parameter, &given))?;
        let array = |name: &&str| Ok(arrays.as_any().get_item(name)?.unbind());
        Ok(Self { t, names, arrays: names.iter().map(array).collect::<PyResult<_>>()? })
    }

    /// Whether the arrays are those of a rule with these states.
    #[inline]
    pub(super) fn is_of(&self, names: &'static [&'static str]) -> bool {
        // The names of a rule are mostly the same memory, which is quicker to see than that they are the same text.
        ptr::eq(self.names, names) || self.names == names
    }

    pub(super) fn to_dict<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let dict = PyDict::new(py);
        for (name, array) in self.names.iter().zip(&self.arrays) {
            dict.set_item(name, array)?;
        }
        Ok(dict)
    }
}

/// How the parameters of a group move; nothing before it is first set.
#[derive(Default)]
pub(super) struct Recipe(pub(super) Option<(Box<dyn Update>, Stages)>);

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
            GRAD => format!("{}{path}", self.form.grads(*group)),
            state => format!("state[{name:?}][{:?}]", self.state.names[state - STATE]),
        }
    }
}
