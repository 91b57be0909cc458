//! One step: what it touches is read and checked, before anything is written.

use std::iter;

use pyo3::prelude::*;

use super::error;
use super::gradients::{Form, Found};
use super::operands::{self, Operands, Places, Unmoved};
use super::parameter::{Located, Parameter, Recipe, State};
use crate::engine::{Batch, Dtype, GRAD, Meeting, Overlaps, STATE, Span, WEIGHT};

/// What a step works with, kept from one to the next: mostly it is still right.
#[derive(Default)]
pub(super) struct Step {
    pub(super) batch: Batch<'static>,
    /// Whether the batch was checked to its end.
    checked: bool,
    /// The parameter that each tensor of the batch is of, and its kernel.
    tensors: Vec<(usize, usize)>,
    /// A parameter, and the dtype, that each kernel was made for.
    kernels: Vec<(usize, Dtype)>,
    overlaps: Overlaps,
    written: Vec<Span>,
    read: Vec<Span>,
    /// Which found parameter and operand each span belongs to.
    writers: Vec<(usize, usize)>,
    readers: Vec<(usize, usize)>,
}

impl Step {
    /// Makes the batch of the step before that of this one, if it is of the same parameters and their arrays are plain and lie
    /// where they lay; gradients may have moved. If not it returns false, and all is to be [prepared](Self::prepare) afresh.
    pub(super) fn renew(
        &mut self,
        found: &[Found<'_>],
        form: Form,
        parameters: &[Parameter],
        recipes: &[Recipe],
    ) -> PyResult<bool> {
        if !self.checked || self.tensors.len() != found.len() || self.read.len() != found.len() {
            return Ok(false);
        }
        self.checked = false;
        let mut moved = false;
        for ((one, tensor), (&(number, kernel), span)) in
            found.iter().zip(self.batch.tensors_mut()).zip(self.tensors.iter().zip(&mut self.read))
        {
            let state = &parameters[number].state;
            if one.parameter != number || state.t != parameters[self.kernels[kernel].0].state.t {
                return Ok(false);
            }
            match operands::unmoved(tensor, &one.weight, &one.grad, &state.arrays) {
                Unmoved::All => {}
                Unmoved::AllButGrad(address) => {
                    moved = true;
                    *span = span.moved_to(address as usize);
                    // SAFETY: the gradient is an array of the same format and size, and as in `prepare_once` for the rest.
                    unsafe { tensor.move_grad(address) };
                }
                Unmoved::No => return Ok(false),
            }
        }
        for (kernel, &(number, dtype)) in self.kernels.iter().enumerate() {
            let Parameter { group, state, .. } = &parameters[number];
            match &recipes[*group].0 {
                Some((update, stages)) if state.is_of(update.state()) => {
                    self.batch.set_kernel(kernel, update.at(state.t + 1, dtype, *stages));
                }
                _ => return Ok(false),
            }
        }
        self.checked = !moved || !self.check_overlaps(found, form, parameters)?;
        Ok(self.checked)
    }

    /// Reads and checks all that a step touches, and fills the batch. A parameter that still needs state is checked, but not
    /// moved.
    pub(super) fn prepare(
        &mut self,
        found: &[Found<'_>],
        form: Form,
        parameters: &[Parameter],
        recipes: &[Recipe],
    ) -> PyResult<()> {
        // Comparing memory runs Python code, which may change what was read before; then all is read again. It is compared
        // again only if it has changed.
        while self.prepare_once(found, form, parameters, recipes)? {}
        self.checked = true;
        Ok(())
    }

    /// Returns whether Python code ran.
    fn prepare_once(
        &mut self,
        found: &[Found<'_>],
        form: Form,
        parameters: &[Parameter],
        recipes: &[Recipe],
    ) -> PyResult<bool> {
        self.checked = false;
        self.batch.clear();
        self.tensors.clear();
        self.kernels.clear();
        self.written.clear();
        self.read.clear();
        self.writers.clear();
        self.readers.clear();
        // Parameters of one group mostly share their step count and dtype, and so a kernel.
        let mut last: Option<(usize, u64, Dtype, usize)> = None;
        for (i, one) in found.iter().enumerate() {
            let parameter = &parameters[one.parameter];
            let recipe = &recipes[parameter.group];
            let state = one.state(parameter);
            let operands = one.read(Located { parameter, state, form })?;
            for (operand, span) in operands.spans() {
                if operand == GRAD {
                    self.read.push(span);
                    self.readers.push((i, operand));
                } else {
                    self.written.push(span);
                    self.writers.push((i, operand));
                }
            }
            let Some((update, stages)) = &recipe.0 else { continue };
            if !state.is_of(update.state()) {
                continue;
            }
            let (t, dtype) = (state.t + 1, operands.dtype());
            let kernel = match last {
                Some((group, at, of, kernel)) if (group, at, of) == (parameter.group, t, dtype) => kernel,
                _ => {
                    self.kernels.push((one.parameter, dtype));
                    self.batch.add_kernel(update.at(t, dtype, *stages))
                }
            };
            self.tensors.push((one.parameter, kernel));
            last = Some((parameter.group, t, dtype, kernel));
            // SAFETY: `found` and `parameters` keep the arrays alive, and the step is not taken unless `check_overlaps` finds
            // that nothing overlaps. Other threads must not resize the arrays during a step: the documentation says so.
            self.batch.push(unsafe { operands.tensor() }, kernel);
        }
        self.check_overlaps(found, form, parameters)
    }

    fn check_overlaps(&mut self, found: &[Found<'_>], form: Form, parameters: &[Parameter]) -> PyResult<bool> {
        let mut python_ran = false;
        let Self { overlaps, written, read, writers, readers, .. } = self;
        overlaps.check(written, read, |meeting| {
            python_ran = true;
            let (a, b) = match meeting {
                Meeting::Written(a, b) => (writers[a], writers[b]),
                Meeting::Read(a, b) => (writers[a], readers[b]),
            };
            let located = |i: usize| {
                let parameter = &parameters[found[i].parameter];
                Located { parameter, state: found[i].state(parameter), form }
            };
            let array = |(i, operand): (usize, usize)| found[i].operand(located(i), operand);
            let place = |(i, operand): (usize, usize)| located(i).place(operand);
            check_apart(&array(a), &array(b), || (place(a), place(b)))
        })?;
        Ok(python_ran)
    }
}

impl<'py> Found<'py> {
    /// The state that the parameter has in this step.
    #[inline]
    fn state<'a>(&'a self, parameter: &'a Parameter) -> &'a State {
        self.made.as_deref().unwrap_or(&parameter.state)
    }

    #[inline]
    fn read<'a>(&'a self, located: Located<'a>) -> PyResult<Operands<'a>> {
        let py = self.weight.py();
        let states = located.state.arrays.iter().map(move |state| state.bind(py));
        let arrays = iter::once(&self.weight).chain(iter::once(&self.grad)).chain(states);
        Operands::read(&arrays, &located)
    }

    fn operand(&self, located: Located<'_>, operand: usize) -> Bound<'py, PyAny> {
        match operand {
            WEIGHT => self.weight.clone(),
            GRAD => self.grad.clone(),
            state => located.state.arrays[state - STATE].bind(self.weight.py()).clone(),
        }
    }
}

/// Checks weights that come together in an optimizer: each by itself, and against each other.
pub(super) fn check_weights<'a, 'py: 'a>(
    weights: impl Iterator<Item = (&'a Parameter, &'a Bound<'py, PyAny>)>,
    form: Form,
) -> PyResult<()> {
    let mut spans = Vec::new();
    let mut owners = Vec::new();
    let none = State::NONE;
    for (parameter, array) in weights {
        let located = Located { parameter, state: &none, form };
        for (_, span) in Operands::read(&iter::once(array), &located)?.spans() {
            spans.push(span);
            owners.push((located, array));
        }
    }
    Overlaps::default().check(&spans, &[], |meeting| {
        let (Meeting::Written(a, b) | Meeting::Read(a, b)) = meeting;
        let ((a, first), (b, second)) = (owners[a], owners[b]);
        check_apart(first, second, || (a.place(WEIGHT), b.place(WEIGHT)))
    })
}

/// Checks that two arrays whose spans meet have no element in common, as interleaved ones have not.
fn check_apart(
    first: &Bound<'_, PyAny>,
    second: &Bound<'_, PyAny>,
    places: impl FnOnce() -> (String, String),
) -> PyResult<()> {
    /// What NumPy may spend on the question, which is hard in general; beyond that the answer is taken to be yes.
    const MAX_WORK: u32 = 1 << 20;
    let numpy = first.py().import("numpy")?;
    // As plain arrays: a subclass could answer for itself.
    let ndarray = numpy.getattr("ndarray")?;
    let plain = |array| ndarray.call_method1("view", (array, &ndarray));
    let shared = numpy.call_method1("shares_memory", (plain(first)?, plain(second)?, MAX_WORK));
    if shared.and_then(|shared| shared.extract::<bool>()).unwrap_or(true) {
        let (first, second) = places();
        return Err(error::share_memory(&first, &second));
    }
    Ok(())
}
