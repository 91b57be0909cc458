//! The arrays of one parameter in a step, viewed and checked.

use pyo3::prelude::*;

use super::array_view::{ArrayKind, ArrayView, is_masked};
use super::error;
use super::parameter::OperandNames;
use crate::engine::{AVERAGE, Axis, Dtype, GRAD, Layout, OPERANDS, STATE, Span, Tensor, TensorSpec, WEIGHT};

/// The arrays of one parameter: all of one dtype and shape, and writeable where a step writes.
pub(super) struct ParamArrays<'a> {
    dtype: Dtype,
    zero_grad: bool,
    views: [Option<ArrayView<'a>>; OPERANDS],
}

impl<'a> ParamArrays<'a> {
    /// Views and checks arrays, each given with its operand, the weight first. `zero_grad` is whether the gradient is to be set to zero.
    #[inline]
    pub(super) fn view<'py: 'a>(
        kind: ArrayKind,
        arrays: &(impl Iterator<Item = (usize, &'a Bound<'py, PyAny>)> + Clone),
        zero_grad: bool,
        names: OperandNames<'_>,
    ) -> PyResult<Self> {
        let mut views = [None; OPERANDS];
        for (operand, array) in arrays.clone() {
            let Some(view) = ArrayView::of(array, kind) else { return Err(not_an_array(operand, array, names)) };
            views[operand] = Some(view);
        }
        let checked = Self::check(&views, zero_grad).map(|dtype| Self { dtype, zero_grad, views });
        checked.map_err(|(operand, fault)| {
            let array = |wanted| arrays.clone().find(|(operand, _)| *operand == wanted);
            match (array(operand), array(WEIGHT)) {
                (Some((_, array)), Some((_, weight))) => fault.into_error(operand, array, weight, names),
                _ => error::bad_index(operand),
            }
        })
    }

    #[inline]
    fn check(views: &[Option<ArrayView<'a>>; OPERANDS], zero_grad: bool) -> Result<Dtype, (usize, ArrayFault)> {
        let Some(weight) = views[WEIGHT] else { return Err((WEIGHT, ArrayFault::Dtype)) };
        if let Some(operand) = views.iter().position(|view| view.is_some_and(ArrayView::has_no_memory)) {
            return Err((operand, ArrayFault::NoMemory));
        }
        let Some(dtype) = weight.dtype() else { return Err((WEIGHT, ArrayFault::Dtype)) };
        for (operand, view) in views.iter().enumerate() {
            let Some(view) = view else { continue };
            if view.dtype() != Some(dtype) {
                return Err((operand, ArrayFault::OtherDtype));
            }
            if !view.has_shape_of(weight) {
                return Err((operand, ArrayFault::OtherShape));
            }
            if operand == GRAD && !zero_grad {
                continue;
            }
            if !view.is_writeable() {
                return Err((operand, ArrayFault::ReadOnly));
            }
            if view.overlaps_itself(dtype) {
                return Err((operand, ArrayFault::OverlapsItself));
            }
        }
        Ok(dtype)
    }

    /// The views by operand.
    #[inline]
    pub(super) fn views(&self) -> impl Iterator<Item = (usize, ArrayView<'a>)> {
        self.views.iter().enumerate().filter_map(|(operand, view)| view.map(|view| (operand, view)))
    }

    pub(super) fn spec(&self) -> TensorSpec {
        let states = self.views[STATE..AVERAGE].iter().flatten().count();
        let average = self.views[AVERAGE].is_some();
        TensorSpec { dtype: self.dtype, states, average, zero_grads: self.zero_grad }
    }

    /// The memory of each operand that has elements.
    #[inline]
    pub(super) fn spans(&self) -> impl Iterator<Item = (usize, Span)> {
        self.views().filter_map(|(operand, view)| view.span(self.dtype).map(|span| (operand, span)))
    }

    /// The arrays as a tensor of the engine.
    ///
    /// # Safety
    /// As long as the tensor is used, the arrays don't overlap, are not freed or given other memory, and are not used by others.
    #[inline]
    pub(super) unsafe fn tensor(&self) -> Tensor<'static> {
        let mut pointers = [std::ptr::null_mut(); OPERANDS];
        for (operand, view) in self.views() {
            pointers[operand] = view.address();
        }
        let len = self.views[WEIGHT].map_or(0, ArrayView::len);
        // SAFETY: the views are of valid arrays of this dtype and shape, `view` has checked that those that are written are writeable, and
        // the caller promised the rest.
        unsafe { Tensor::new(self.spec(), len, pointers, self.layout()) }
    }

    /// The layout, or `None` if all operands are dense in one order.
    fn layout(&self) -> Option<Box<Layout>> {
        let weight = self.views[WEIGHT]?;
        if weight.is_dense(self.dtype) && self.views().all(|(_, view)| view.has_order_of(weight)) {
            return None;
        }
        let mut axes: Vec<_> =
            weight.axes().map(|(len, _)| Axis { len: len.unsigned_abs(), strides: [0; OPERANDS] }).collect();
        for (operand, view) in self.views() {
            for (axis, (_, stride)) in axes.iter_mut().zip(view.axes()) {
                axis.strides[operand] = stride;
            }
        }
        Some(Box::new(Layout::new(axes)))
    }
}

/// Why an array can't be an operand.
#[derive(Clone, Copy)]
enum ArrayFault {
    NoMemory,
    Dtype,
    OtherDtype,
    OtherShape,
    ReadOnly,
    OverlapsItself,
}

impl ArrayFault {
    #[cold]
    fn into_error(
        self,
        operand: usize,
        array: &Bound<'_, PyAny>,
        weight: &Bound<'_, PyAny>,
        names: OperandNames<'_>,
    ) -> PyErr {
        let name = names.of(operand);
        match self {
            Self::Dtype | Self::OtherDtype if is_masked(array).unwrap_or(false) => {
                error::masked(&name, operand == GRAD)
            }
            Self::NoMemory => error::no_memory(&name, array),
            Self::Dtype => error::bad_dtype(&name, array),
            Self::OtherDtype if operand == GRAD => {
                error::other_dtype_of_grad(&name, array, (&names.of(WEIGHT), weight))
            }
            Self::OtherDtype => error::other_dtype(&name, array, (&names.of(WEIGHT), weight)),
            Self::OtherShape => error::other_shape(&name, array, (&names.of(WEIGHT), weight)),
            Self::ReadOnly => error::read_only(&name),
            Self::OverlapsItself => error::overlaps_itself(&name),
        }
    }
}

#[cold]
fn not_an_array(operand: usize, given: &Bound<'_, PyAny>, names: OperandNames<'_>) -> PyErr {
    let name = names.of(operand);
    if operand == GRAD { error::not_a_gradient(&name, given) } else { error::not_an_array(&name, given) }
}
