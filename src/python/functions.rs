//! Functions of the C library for whole arrays: those that Python's `math` calls, with the same bits.
//!
//! NumPy has its own, which differ in the last digit, so a schedule's values would depend on how they are asked for.

use numpy::PyReadwriteArray1;
use pyo3::prelude::*;

use super::error;

/// Replaces each number of an array by a function of it; `pow` raises it to the operand, `rpow` the operand to it.
#[pyfunction]
pub(crate) fn map_(function: &str, mut array: PyReadwriteArray1<'_, f64>, operand: f64) -> PyResult<()> {
    let numbers = array.as_slice_mut()?;
    match function {
        "cos" => each(numbers, f64::cos),
        "exp" => each(numbers, f64::exp),
        "log" => each(numbers, f64::ln),
        "pow" => each(numbers, |x| x.powf(operand)),
        "rpow" => each(numbers, |x| operand.powf(x)),
        "tanh" => each(numbers, f64::tanh),
        _ => return Err(error::bad_function(function)),
    }
    Ok(())
}

fn each(numbers: &mut [f64], function: impl Fn(f64) -> f64) {
    for x in numbers {
        *x = function(*x);
    }
}
