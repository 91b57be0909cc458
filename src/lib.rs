//! Fused optimizer steps on weights and gradients in memory, in place.
//!
//! ```text
//! rule      the update of one weight: arithmetic; one family per file in `rules`
//! engine    applies a rule to arrays: threads, instruction sets, stored formats, layouts, stages
//! bindings  check NumPy arrays and tensors, and pass them to the engine (feature `python`)
//! ```
//!
//! Each layer depends only on the layers above it in this list. `ARCHITECTURE.md` follows one step through all of them.

pub mod engine;
pub mod rule;
pub mod rules;

#[cfg(feature = "python")]
mod python;

#[cfg(feature = "python")]
// The GIL keeps Python code and other steps away while arrays are read: free-threaded interpreters have to enable it.
#[pyo3::pymodule(gil_used = true)]
mod _lrcore {
    #[pymodule_export]
    use super::python::{
        Stepper, after_fork_in_child, after_fork_in_parent, at_exit, before_fork, get_num_threads, get_simd_level,
        map_, parse_safetensors_header, rules, same_objects, set_num_threads, set_simd_level, simd_levels,
    };
    #[pymodule_export]
    #[expect(non_upper_case_globals, reason = "Python's name for it")]
    const __version__: &str = env!("CARGO_PKG_VERSION");
}
