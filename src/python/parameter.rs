//! A parameter of an optimizer, and the configuration of its group.

use pyo3::prelude::*;
use pyo3::types::PyString;

use super::param_path::{GradLayout, ParamPath};
use super::state::{AVERAGE_NAME, State};
use crate::engine::{AVERAGE, ErasedOptimizer, GRAD, STATE, Stages, WEIGHT};

pub(super) struct Parameter {
    pub(super) path: ParamPath,
    pub(super) group: usize,
    pub(super) state: State,
    /// Whether weight decay acts on it.
    pub(super) decays: bool,
    /// Whether its last gradient [may have been lazy](super::array_view::ArrayView::may_be_lazy), or there was none.
    pub(super) may_be_lazy: bool,
}

/// The configuration of a group; `rule` is `None` until it is set.
pub(super) struct GroupConfig {
    pub(super) rule: Option<Box<dyn ErasedOptimizer>>,
    /// The names of the rule's state arrays, also as keys of external state.
    pub(super) state_names: &'static [&'static str],
    pub(super) state_keys: Vec<Py<PyString>>,
    pub(super) stages: Stages,
}

impl GroupConfig {
    pub(super) const NONE: Self = Self { rule: None, state_names: &[], state_keys: Vec::new(), stages: Stages::NONE };

    pub(super) fn new(py: Python<'_>, rule: Box<dyn ErasedOptimizer>, stages: Stages) -> Self {
        let state_names = rule.state();
        let state_keys = state_names.iter().map(|name| PyString::intern(py, name).unbind()).collect();
        Self { rule: Some(rule), state_names, state_keys, stages }
    }

    /// Whether gradients of the group are set to zero; `all` says whether those of all groups are.
    pub(super) fn zeroes(&self, all: bool) -> bool {
        all || self.stages.zero_grads
    }
}

/// What the operands of a parameter are called in messages.
#[derive(Clone, Copy)]
pub(super) struct OperandNames<'a> {
    pub(super) parameter: &'a Parameter,
    /// The state that the parameter has or is to get.
    pub(super) state: &'a State,
    pub(super) layout: GradLayout,
}

impl OperandNames<'_> {
    pub(super) fn of(self, operand: usize) -> String {
        let Parameter { path: ParamPath { name, indices }, group, .. } = self.parameter;
        match operand {
            WEIGHT => format!("{}{indices}", self.layout.params(*group)),
            GRAD => self.layout.grad(*group, indices),
            AVERAGE => format!("state[{name:?}][{AVERAGE_NAME:?}]"),
            state => format!("state[{name:?}][{:?}]", self.state.names[state - STATE]),
        }
    }
}
