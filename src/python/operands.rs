//! The arrays of one parameter in a step, read and checked.

use pyo3::prelude::*;

use super::buffers::{Header, Source, is_masked};
use super::error;
use super::parameter::Parameter;
use crate::engine::{AVERAGE, Axis, Dtype, GRAD, Layout, OPERANDS, STATE, Span, Tensor, TensorSpec, WEIGHT};

/// What the arrays are called in messages.
pub(super) trait Places {
    fn place(&self, operand: usize) -> String;
}

/// The arrays of one parameter: all of one dtype and shape, and fit to be read or written as a step needs.
pub(super) struct Operands<'a> {
    dtype: Dtype,
    /// Whether the gradient is to be set to zero.
    zeroed: bool,
    headers: [Option<Header<'a>>; OPERANDS],
}

impl<'a> Operands<'a> {
    /// Reads the arrays, each with the number of its operand, the weight first, and checks each. `zeroed` is whether the
    /// gradient is to be set to zero.
    #[inline]
    pub(super) fn read<'py: 'a>(
        source: Source,
        arrays: &(impl Iterator<Item = (usize, &'a Bound<'py, PyAny>)> + Clone),
        zeroed: bool,
        places: &impl Places,
    ) -> PyResult<Self> {
        let mut headers = [None; OPERANDS];
        for (operand, array) in arrays.clone() {
            let Some(header) = Header::of(array, source) else { return Err(not_an_array(operand, array, places)) };
            headers[operand] = Some(header);
        }
        let checked = Self::check(&headers, zeroed).map(|dtype| Self { dtype, zeroed, headers });
        checked.map_err(|(operand, problem)| {
            let array = |wanted| arrays.clone().find(|(operand, _)| *operand == wanted);
            match (array(operand), array(WEIGHT)) {
                (Some((_, array)), Some((_, weight))) => problem.into_error(operand, array, weight, places),
                _ => error::bad_index(operand),
            }
        })
    }

    #[inline]
    fn check(headers: &[Option<Header<'a>>; OPERANDS], zeroed: bool) -> Result<Dtype, (usize, Problem)> {
        let Some(weight) = headers[WEIGHT] else { return Err((WEIGHT, Problem::Dtype)) };
        if let Some(operand) = headers.iter().position(|header| header.is_some_and(Header::is_nowhere)) {
            return Err((operand, Problem::Nowhere));
        }
        let Some(dtype) = weight.dtype() else { return Err((WEIGHT, Problem::Dtype)) };
        for (operand, header) in headers.iter().enumerate() {
            let Some(header) = header else { continue };
            if header.dtype() != Some(dtype) {
                return Err((operand, Problem::OtherDtype));
            }
            if !header.is_shaped_like(weight) {
                return Err((operand, Problem::OtherShape));
            }
            if operand == GRAD && !zeroed {
                continue;
            }
            if !header.is_writeable() {
                return Err((operand, Problem::ReadOnly));
            }
            if header.overlaps_itself(dtype) {
                return Err((operand, Problem::SharesWithItself));
            }
        }
        Ok(dtype)
    }

    fn present(&self) -> impl Iterator<Item = (usize, Header<'a>)> {
        self.headers.iter().enumerate().filter_map(|(operand, header)| header.map(|header| (operand, header)))
    }

    /// What the arrays are, for the engine.
    pub(super) fn spec(&self) -> TensorSpec {
        let states = self.headers[STATE..AVERAGE].iter().flatten().count();
        let average = self.headers[AVERAGE].is_some();
        TensorSpec { dtype: self.dtype, states, average, zero_grads: self.zeroed }
    }

    /// The memory of each operand that has some.
    #[inline]
    pub(super) fn spans(&self) -> impl Iterator<Item = (usize, Span)> {
        self.present().filter_map(|(operand, header)| header.span(self.dtype).map(|span| (operand, span)))
    }

    /// The tensor of a step.
    ///
    /// # Safety
    /// The operands don't overlap, and are neither freed, given other memory, nor used by others for as long as the tensor is used.
    #[inline]
    pub(super) unsafe fn tensor(&self) -> Tensor<'static> {
        let mut pointers = [std::ptr::null_mut(); OPERANDS];
        for (operand, header) in self.present() {
            pointers[operand] = header.address();
        }
        let len = self.headers[WEIGHT].map_or(0, Header::len);
        // SAFETY: the headers describe valid arrays of this dtype and shape, `read` has checked that those that are written
        // may be, and the rest is the caller's promise.
        unsafe { Tensor::new(self.spec(), len, pointers, self.layout()) }
    }

    /// The layout, or `None` if all operands are dense in one order.
    fn layout(&self) -> Option<Box<Layout>> {
        let weight = self.headers[WEIGHT]?;
        if weight.is_dense(self.dtype) && self.present().all(|(_, header)| header.is_ordered_like(weight)) {
            return None;
        }
        let mut axes: Vec<_> =
            weight.axes().map(|(len, _)| Axis { len: len.unsigned_abs(), strides: [0; OPERANDS] }).collect();
        for (operand, header) in self.present() {
            for (axis, (_, stride)) in axes.iter_mut().zip(header.axes()) {
                axis.strides[operand] = stride;
            }
        }
        Some(Box::new(Layout::new(axes)))
    }
}

/// Where the arrays of a step before are now.
pub(super) enum Unmoved {
    /// Where they were.
    All,
    /// The gradient is here, the others where they were.
    AllButGrad(*mut u8),
    /// Elsewhere, or not what they were.
    No,
}

/// Whether arrays are still as a tensor of them says, dense in C or all in Fortran order, and fit for a step. That is much less
/// to look at than [`Operands::read`] does, which says what is wrong.
#[inline]
pub(super) fn unmoved(
    tensor: &Tensor<'_>,
    source: Source,
    [weight, grad]: [&Bound<'_, PyAny>; 2],
    Parameter { state, may_be_lazy, .. }: &Parameter,
) -> Unmoved {
    let py = weight.py();
    let TensorSpec { dtype, average, zero_grads, .. } = tensor.spec();
    let Some([weight_address, grad_address, state_addresses @ ..]) = tensor.addresses() else { return Unmoved::No };
    let (Some(weight), Some(grad)) = (Header::of(weight, source), Header::of(grad, source)) else { return Unmoved::No };
    let fits = |header: Header<'_>| header.dtype() == Some(dtype) && header.is_shaped_like(weight);
    let stays = |header: Header<'_>, address: *mut u8| header.address() == address && header.is_writeable();
    // Each array of the tensor must be compared with one that lives: that of a step which was not taken may be gone.
    let as_many = state.arrays.len() == state_addresses.len() && (state.average.is_some() || !average);
    let same = weight.len() == tensor.len() && as_many;
    let fit = fits(weight) && fits(grad) && (!grad.may_be_lazy() || *may_be_lazy);
    if !same || !fit || !stays(weight, *weight_address) || (zero_grads && !grad.is_writeable()) {
        return Unmoved::No;
    }
    let mut order = weight.order() & grad.order();
    let averages = state.average.iter().filter(|_| average).map(|array| (array, tensor.average()));
    for (array, address) in state.arrays.iter().zip(state_addresses.iter().copied()).chain(averages) {
        match Header::of(array.bind(py), source) {
            Some(array) if fits(array) && stays(array, address) => order &= array.order(),
            _ => return Unmoved::No,
        }
    }
    match order {
        0 => Unmoved::No,
        _ if grad.address() == *grad_address => Unmoved::All,
        _ => Unmoved::AllButGrad(grad.address()),
    }
}

/// What can be wrong with an operand.
#[derive(Clone, Copy)]
enum Problem {
    Nowhere,
    Dtype,
    OtherDtype,
    OtherShape,
    ReadOnly,
    SharesWithItself,
}

impl Problem {
    #[cold]
    fn into_error(
        self,
        operand: usize,
        array: &Bound<'_, PyAny>,
        weight: &Bound<'_, PyAny>,
        places: &impl Places,
    ) -> PyErr {
        let place = places.place(operand);
        match self {
            Self::Dtype | Self::OtherDtype if is_masked(array).unwrap_or(false) => {
                error::masked(&place, operand == GRAD)
            }
            Self::Nowhere => error::nowhere(&place, array),
            Self::Dtype => error::bad_dtype(&place, array),
            Self::OtherDtype if operand == GRAD => {
                error::other_dtype_of_grad(&place, array, (&places.place(WEIGHT), weight))
            }
            Self::OtherDtype => error::other_dtype(&place, array, (&places.place(WEIGHT), weight)),
            Self::OtherShape => error::other_shape(&place, array, (&places.place(WEIGHT), weight)),
            Self::ReadOnly => error::read_only(&place),
            Self::SharesWithItself => error::shares_with_itself(&place),
        }
    }
}

#[cold]
fn not_an_array(operand: usize, given: &Bound<'_, PyAny>, places: &impl Places) -> PyErr {
    let place = places.place(operand);
    if operand == GRAD { error::not_a_gradient(&place, given) } else { error::not_an_array(&place, given) }
}
