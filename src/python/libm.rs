//! The C library's functions for whole arrays, with the bits of Python's `math`.
//!
//! NumPy's differ in the last digit, so a schedule would have other values for an array of steps than for one step.

use numpy::PyReadwriteArray1;
use pyo3::prelude::*;

use super::error;

/// Replaces each element `x` by a function of it; `"pow"` is `x ^ operand`, `"rpow"` is `operand ^ x`.
#[pyfunction]
pub(crate) fn map_(function: &str, mut array: PyReadwriteArray1<'_, f64>, operand: f64) -> PyResult<()> {
    let elements = array.as_slice_mut()?;
    match function {
        "cos" => apply(elements, f64::cos),
        "exp" => apply(elements, f64::exp),
        "log" => apply(elements, f64::ln),
        "pow" => apply(elements, |x| x.powf(operand)),
        "rpow" => apply(elements, |x| operand.powf(x)),
        "tanh" => apply(elements, f64::tanh),
        _ => return Err(error::bad_function(function)),
    }
    Ok(())
}

fn apply(elements: &mut [f64], function: impl Fn(f64) -> f64) {
    for x in elements {
        *x = function(*x);
    }
}
