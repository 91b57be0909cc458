//! lrcore moves parameters: given weights and gradients it applies one optimizer step in place, at the speed of memory.
//!
//! * A [rule](rule) says how one weight moves. [`rules`] holds them, one family a file.
//! * The [engine] applies a rule to arrays: threads, instruction sets, formats, tails.
//! * The bindings (feature `python`) check NumPy arrays and hand them to the engine.
//!
//! Each layer knows only the one below it. `ARCHITECTURE.md` follows one step through all of them.

pub mod engine;
pub mod rule;
pub mod rules;

#[cfg(feature = "python")]
mod python;

#[cfg(feature = "python")]
// The GIL is what keeps Python code and other steps away while arrays are read, so an interpreter without it has to turn it on.
#[pyo3::pymodule(gil_used = true)]
mod _lrcore {
    #[pymodule_export]
    use super::python::{
        Stepper, after_fork_in_child, after_fork_in_parent, at_exit, before_fork, get_num_threads, get_simd_level,
        map_, rules, same_objects, set_num_threads, set_simd_level, simd_levels,
    };
    #[pymodule_export]
    #[expect(non_upper_case_globals, reason = "Python's name for it")]
    const __version__: &str = env!("CARGO_PKG_VERSION");
}
