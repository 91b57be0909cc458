//! The bindings: check arrays and convert them to tensors of the engine, and hyperparameters to rules.
//!
//! A module imports only those before it: `calls`, `error`, `libm`, `safetensors_header`; `known_types`, `dlpack`, `fingerprint`,
//! `array_view`; `param_path`, `param_tree`, `param_groups`; `external_state`, `state`, `parameter`; `param_arrays`, `shared_memory`,
//! `step_plan`; `accumulator`, `stepper`.

mod accumulator;
mod array_view;
mod calls;
mod dlpack;
mod error;
mod external_state;
mod fingerprint;
mod known_types;
mod libm;
mod param_arrays;
mod param_groups;
mod param_path;
mod param_tree;
mod parameter;
mod safetensors_header;
mod shared_memory;
mod state;
mod step_plan;
mod stepper;

use pyo3::prelude::*;
use pyo3::types::PyList;

pub(crate) use calls::{after_fork_in_child, after_fork_in_parent, at_exit, before_fork};
pub(crate) use libm::map_;
pub(crate) use safetensors_header::parse_safetensors_header;
pub(crate) use stepper::Stepper;

use crate::engine::simd::{self, Level};
use crate::engine::{self, parallel};
use crate::rules::NAMES;

/// The instruction sets that this machine has, from the narrowest to the widest.
#[pyfunction]
pub(crate) fn simd_levels() -> Vec<&'static str> {
    Level::available().map(Level::name).collect()
}

/// The instruction set in use.
#[pyfunction]
pub(crate) fn get_simd_level() -> &'static str {
    simd::current().name()
}

/// Sets the instruction set from the next step on.
#[pyfunction]
pub(crate) fn set_simd_level(level: &str) -> PyResult<()> {
    let named = Level::from_name(level).filter(|&named| simd::set(named));
    named.map(|_| ()).ok_or_else(|| error::bad_level(level))
}

/// The largest number of threads that a step uses.
#[pyfunction]
pub(crate) fn get_num_threads() -> usize {
    parallel::num_threads()
}

/// Sets the largest number of threads from the next step on.
#[pyfunction]
pub(crate) fn set_num_threads(threads: &Bound<'_, PyAny>) -> PyResult<()> {
    let set = threads.extract().is_ok_and(parallel::set_num_threads);
    if set { Ok(()) } else { Err(error::bad_thread_count(threads)) }
}

/// The registered rules: name, hyperparameters in order, state arrays in order.
#[pyfunction]
pub(crate) fn rules() -> Vec<(&'static str, Vec<&'static str>, Vec<&'static str>)> {
    let describe = |&name| {
        let signature = engine::signature(name)?;
        Some((name, signature.hyperparameters.to_vec(), signature.state.to_vec()))
    };
    NAMES.iter().filter_map(describe).collect()
}

/// Whether two lists of lists hold the same objects.
#[pyfunction]
pub(crate) fn same_objects(first: &Bound<'_, PyList>, second: &Bound<'_, PyList>) -> bool {
    same_items(first, second, |one, other| match (one.cast::<PyList>(), other.cast::<PyList>()) {
        (Ok(one), Ok(other)) => same_items(one, other, |one, other| one.is(other)),
        _ => false,
    })
}

fn same_items<'py>(
    first: &Bound<'py, PyList>,
    second: &Bound<'py, PyList>,
    same: impl Fn(&Bound<'py, PyAny>, &Bound<'py, PyAny>) -> bool,
) -> bool {
    first.len() == second.len() && first.iter().zip(second.iter()).all(|(one, other)| same(&one, &other))
}
