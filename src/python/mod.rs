//! The bindings: NumPy arrays become checked tensors, hyperparameters become rules. They know the engine and the names of
//! the rules, and nothing of how a rule moves a weight.

mod accumulator;
mod buffers;
mod calls;
mod dlpack;
mod error;
mod functions;
mod gradients;
mod home;
mod known;
mod operands;
mod parameter;
mod step;
mod stepper;
mod structure;

use pyo3::prelude::*;

pub(crate) use calls::{after_fork_in_child, after_fork_in_parent, at_exit, before_fork};
pub(crate) use functions::map_;
pub(crate) use gradients::same_objects;
pub(crate) use stepper::Stepper;

use crate::engine::simd::{self, Level};
use crate::engine::{self, parallel};
use crate::rules::NAMES;

/// The instruction sets that this machine can run, from the least to the best.
#[pyfunction]
pub(crate) fn simd_levels() -> Vec<&'static str> {
    Level::available().map(Level::name).collect()
}

/// The instruction set in use.
#[pyfunction]
pub(crate) fn get_simd_level() -> &'static str {
    simd::current().name()
}

/// Uses an instruction set from the next step on.
#[pyfunction]
pub(crate) fn set_simd_level(level: &str) -> PyResult<()> {
    let named = Level::from_name(level).filter(|&named| simd::set(named));
    named.map(|_| ()).ok_or_else(|| error::bad_level(level))
}

/// How many threads a step uses at most.
#[pyfunction]
pub(crate) fn get_num_threads() -> usize {
    parallel::num_threads()
}

/// Uses this many threads from the next step on.
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
