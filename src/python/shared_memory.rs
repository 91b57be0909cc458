//! Arrays that must not share memory, compared outside a step's plan.

use std::iter;

use pyo3::prelude::*;

use super::array_view::{ArrayKind, ArrayView};
use super::error;
use super::param_arrays::ParamArrays;
use super::param_path::GradLayout;
use super::parameter::{OperandNames, Parameter};
use super::state::NO_STATE;
use crate::engine::{GRAD, Overlap, OverlapChecker, Span, WEIGHT};

/// Checks the weights of an optimizer, each by itself and against each other, and returns their memory.
pub(super) fn check_weights<'a, 'py: 'a>(
    weights: impl Iterator<Item = (&'a Parameter, &'a Bound<'py, PyAny>)>,
    layout: GradLayout,
) -> PyResult<Vec<Span>> {
    let mut spans = Vec::new();
    let mut owners = Vec::new();
    for (parameter, array) in weights {
        let names = OperandNames { parameter, state: &NO_STATE, layout };
        for (_, span) in ParamArrays::view(ArrayKind::NumPy, &iter::once((WEIGHT, array)), false, names)?.spans() {
            spans.push(span);
            owners.push((names, array));
        }
    }
    OverlapChecker::default().check(&spans, &[], |overlap| {
        let (Overlap::Written(a, b) | Overlap::Read(a, b)) = overlap;
        let ((a, first), (b, second)) = (owners[a], owners[b]);
        check_apart(first, second, || (a.of(WEIGHT), b.of(WEIGHT)))
    })?;
    Ok(spans)
}

/// Checks that gradients, which are to be set to zero, share no element with weights, each given with its parameter.
pub(super) fn check_zeroed_grads<'a, 'py: 'a>(
    grads: impl Iterator<Item = (&'a Parameter, &'a Bound<'py, PyAny>)>,
    weights: impl Iterator<Item = (&'a Parameter, &'a Bound<'py, PyAny>)>,
    layout: GradLayout,
) -> PyResult<()> {
    let with_span = |(parameter, array): (&'a Parameter, &'a Bound<'py, PyAny>)| {
        let view = ArrayView::of(array, ArrayKind::NumPy)?;
        Some(((OperandNames { parameter, state: &NO_STATE, layout }, array), view.span(view.dtype()?)?))
    };
    let (grads, written): (Vec<_>, Vec<_>) = grads.filter_map(with_span).unzip();
    let (weights, read): (Vec<_>, Vec<_>) = weights.filter_map(with_span).unzip();
    OverlapChecker::default().check(&written, &read, |overlap| match overlap {
        Overlap::Read(a, b) => {
            let ((grad_names, grad), (weight_names, weight)) = (grads[a], weights[b]);
            check_apart(weight, grad, || (weight_names.of(WEIGHT), grad_names.of(GRAD)))
        }
        // The plan compares gradients with each other.
        Overlap::Written(..) => Ok(()),
    })
}

/// Checks that two arrays whose spans overlap share no element: interleaved ones don't.
pub(super) fn check_apart(
    first: &Bound<'_, PyAny>,
    second: &Bound<'_, PyAny>,
    names: impl FnOnce() -> (String, String),
) -> PyResult<()> {
    /// The work that NumPy may do for the answer, which is a hard problem in general. Beyond it, arrays are taken to share memory.
    const MAX_WORK: u32 = 1 << 20;
    let numpy = first.py().import("numpy")?;
    // As plain arrays: a subclass could answer for itself.
    let ndarray = numpy.getattr("ndarray")?;
    let plain = |array| ndarray.call_method1("view", (as_numpy(array)?, &ndarray));
    let shared = numpy.call_method1("shares_memory", (plain(first)?, plain(second)?, MAX_WORK));
    if shared.and_then(|shared| shared.extract::<bool>()).unwrap_or(true) {
        let (first, second) = names();
        return Err(error::share_memory(&first, &second));
    }
    Ok(())
}

/// A NumPy array, or a tensor as one.
pub(super) fn as_numpy<'py>(array: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    match ArrayView::of(array, ArrayKind::NumPy) {
        Some(_) => Ok(array.clone()),
        None => array.call_method0("detach")?.call_method0("numpy"),
    }
}
