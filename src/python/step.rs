//! One step: what it touches is read and checked, before anything is written.

use std::iter;

use pyo3::prelude::*;

use super::buffers::{Header, Source};
use super::gradients::{self, Form, Found};
use super::operands::{self, Operands, Places, Unmoved};
use super::parameter::{Located, Parameter, Recipe, State};
use super::{calls, error};
use crate::engine::{
    AVERAGE, Average, Batch, Dtype, Factor, GRAD, Kernel, Norm, Overlap, OverlapChecker, STATE, Sample, Span, Stages,
    Stats, WEIGHT,
};

/// The parameters of a step, and what is to be done with them.
#[derive(Clone, Copy)]
pub(super) struct Task<'a> {
    pub(super) form: Form,
    pub(super) source: Source,
    pub(super) parameters: &'a [Parameter],
    pub(super) recipes: &'a [Recipe],
    /// The average that the step moves, if there is one.
    pub(super) average: Option<Average>,
    /// The number of the step, from 1.
    pub(super) number: u64,
    /// Whether gradients are to be set to zero, whatever the recipe says.
    pub(super) zero_grads: bool,
}

/// What a step works with, kept from one to the next: mostly it is still right.
#[derive(Default)]
pub(super) struct Step {
    pub(super) batch: Batch<'static>,
    kernels: Vec<Box<dyn Kernel>>,
    /// Whether the batch was checked to its end.
    checked: bool,
    /// The parameter that each tensor of the batch is of, and its kernel's slot.
    tensors: Vec<(usize, usize)>,
    /// What the tensors of each slot have in common.
    kinds: Vec<Kind>,
    overlaps: OverlapChecker,
    written: Vec<Span>,
    read: Vec<Span>,
    /// Which found parameter and operand each span belongs to.
    writers: Vec<(usize, usize)>,
    readers: Vec<(usize, usize)>,
}

/// What parameters have in common that are moved by one kernel.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Kind {
    group: usize,
    dtype: Dtype,
    t: u64,
    averaged: u64,
    averages: bool,
    decays: bool,
    zeroed: bool,
}

impl Task<'_> {
    fn kind(&self, parameter: &Parameter, state: &State, dtype: Dtype) -> Kind {
        let &Parameter { group, decays, .. } = parameter;
        let averages = self.averages(state);
        // A count that no kernel depends on must not keep parameters apart.
        let averaged = if averages { state.averaged } else { 0 };
        Kind { group, dtype, t: state.t, averaged, averages, decays, zeroed: self.zeroes(group) }
    }

    /// Whether the step moves the average of a parameter with this state.
    pub(super) fn averages(&self, state: &State) -> bool {
        self.average.is_some_and(|average| average.coefficient(self.number, state.averaged).is_some())
    }

    /// Whether a parameter with this state still needs memory for its average. Where states are kept in mappings it is there from
    /// the first step on, also if that does not count, so that all states of an optimizer have the same names.
    fn lacks_average(&self, state: &State) -> bool {
        state.average.is_none() && (self.averages(state) || (self.average.is_some() && state.home.is_some()))
    }

    /// Whether gradients of a group are set to zero.
    pub(super) fn zeroes(&self, group: usize) -> bool {
        self.zero_grads || self.recipes[group].update.as_ref().is_some_and(|(_, stages)| stages.zero_grads)
    }

    /// The kernel that moves tensors of a kind, with gradients multiplied by a factor.
    fn kernel(&self, kind: Kind, grad_factor: Factor) -> PyResult<Box<dyn Kernel>> {
        let Some((update, stages)) = &self.recipes[kind.group].update else { return Err(error::unknown_rule("")) };
        let stages = Stages {
            grad_factor,
            average: self
                .average
                .filter(|_| kind.averages)
                .and_then(|average| average.coefficient(self.number, kind.averaged)),
            decay_rate: if kind.decays { stages.decay_rate } else { 0.0 },
            zero_grads: kind.zeroed,
            ..*stages
        };
        let kernel = update.at(kind.t + 1, kind.dtype, stages);
        kernel.map_err(|unfit| error::unfit(kind.group, unfit, kind.dtype))
    }
}

impl Step {
    /// Makes the batch of a step ready: as before if it can be [renewed](Self::renew), else [prepared](Self::prepare), with
    /// state made where a parameter has none. That belongs to the parameter when the step has been taken.
    ///
    /// Returns whether nothing has moved, and no Python code ran.
    pub(super) fn ready(&mut self, found: &mut [Found<'_>], task: Task<'_>, make_state: &Py<PyAny>) -> PyResult<bool> {
        if self.renew(found, task)? {
            return Ok(true);
        }
        for one in &mut *found {
            if Header::of(&one.grad, task.source).is_none()
                && let Some(array) = gradients::scalar_as_array(&one.grad, &one.weight)?
            {
                one.grad = array;
            }
            one.resolve(task.source)?;
            one.learn(task.source, &task.parameters[one.parameter])?;
        }
        self.prepare(found, task)?;
        if self.batch.len() == found.len() {
            return Ok(false);
        }
        for found in &mut *found {
            let Parameter { group, state, .. } = &task.parameters[found.parameter];
            let Some((update, _)) = &task.recipes[*group].update else { return Err(error::unknown_rule("")) };
            let lacks_average = task.lacks_average(state);
            if !state.is_of(update.state()) || lacks_average {
                let py = found.weight.py();
                let make = |initial: f64| make_state.call1(py, (&found.weight, initial));
                found.made = Some(Box::new(state.turned_into(py, &**update, lacks_average, make)?));
                found.learn(task.source, &task.parameters[found.parameter])?;
            }
        }
        self.prepare(found, task)?;
        Ok(false)
    }

    /// Whether the step is so short that the interpreter is kept through it.
    pub(super) fn is_short(&self) -> bool {
        self.batch.total() < DETACH
    }

    /// Makes the batch of the step before that of this one, if it is of the same parameters and their arrays are plain and lie
    /// where they lay; gradients may have moved. If not it returns false, and all is to be [prepared](Self::prepare) afresh.
    fn renew(&mut self, found: &[Found<'_>], task: Task<'_>) -> PyResult<bool> {
        if !self.checked || self.tensors.len() != found.len() {
            return Ok(false);
        }
        self.checked = false;
        // The first tensor of each slot says what kind it is now; the others must still be like it.
        let mut firsts = 0;
        let mut moved = false;
        for (i, ((one, tensor), &(number, slot))) in
            found.iter().zip(self.batch.tensors_mut()).zip(&self.tensors).enumerate()
        {
            let parameter = &task.parameters[number];
            let state = &parameter.state;
            let recipe = &task.recipes[parameter.group].update;
            if one.parameter != number
                || !recipe.as_ref().is_some_and(|(update, _)| state.is_of(update.state()))
                || task.lacks_average(state)
            {
                return Ok(false);
            }
            let kind = task.kind(parameter, state, tensor.spec().dtype);
            if slot == firsts {
                let (averages, zeroed) = (tensor.spec().average, tensor.spec().zero_grads);
                if (averages, zeroed) != (kind.averages, kind.zeroed) {
                    return Ok(false);
                }
                self.kinds[slot] = kind;
                firsts += 1;
            } else if self.kinds[slot] != kind {
                return Ok(false);
            }
            match operands::unmoved(tensor, task.source, [&one.weight, &one.grad], parameter) {
                Unmoved::All => {}
                // The spans of gradients are in order unless some have none, or are written.
                Unmoved::AllButGrad(address) if self.read.len() == found.len() => {
                    moved = true;
                    self.read[i] = self.read[i].moved_to(address as usize);
                    // SAFETY: the gradient is an array of the same format and size, read just now; as in `prepare_once` for the rest.
                    unsafe { tensor.move_grad(address) };
                }
                _ => return Ok(false),
            }
        }
        self.checked = !moved || !self.check_overlaps(found, task)?;
        Ok(self.checked)
    }

    /// Makes the kernels of the batch, with gradients multiplied by a factor.
    pub(super) fn fold(&mut self, task: Task<'_>, grad_factor: Factor) -> PyResult<()> {
        let Self { kernels, kinds, .. } = self;
        kernels.clear();
        for &kind in &*kinds {
            kernels.push(task.kernel(kind, grad_factor)?);
        }
        Ok(())
    }

    /// Moves the tensors of the batch by its kernels.
    ///
    /// # Safety
    /// No Python code ran since the batch was made [ready](Self::ready). While the interpreter is given up, other threads free, move and
    /// write no memory of the arrays: users are told not to.
    pub(super) unsafe fn run(&mut self, py: Python<'_>, sample: Option<Sample>) {
        let kernels = &self.kernels;
        detached(py, &mut self.batch, |batch| batch.run(kernels, sample));
    }

    /// [Moves the tensors](Self::run), and returns what it did to each, and how many elements that has.
    ///
    /// # Safety
    /// As [`run`](Self::run).
    pub(super) unsafe fn run_with_stats(&mut self, py: Python<'_>, sample: Option<Sample>) -> Vec<(usize, Stats)> {
        let kernels = &self.kernels;
        let stats = detached(py, &mut self.batch, |batch| batch.run_with_stats(kernels, sample));
        self.batch.tensors_mut().map(|tensor| tensor.len()).zip(stats).collect()
    }

    /// The norm of the gradients, multiplied by a factor.
    ///
    /// # Safety
    /// As [`run`](Self::run).
    pub(super) unsafe fn grad_norm(&mut self, py: Python<'_>, norm: Norm, scale: Factor) -> Factor {
        detached(py, &mut self.batch, |batch| batch.grad_norm(norm, scale))
    }

    /// Reads and checks all that a step touches, and fills the batch. A parameter that still needs state is checked, but not
    /// moved.
    fn prepare(&mut self, found: &[Found<'_>], task: Task<'_>) -> PyResult<()> {
        // Comparing memory runs Python code, which may change what was read before; then all is read again. It is compared
        // again only if it has changed.
        while self.prepare_once(found, task)? {}
        // Those that are left out were looked at, but there is nothing to compare them with.
        self.checked = self.batch.len() == found.len();
        Ok(())
    }

    /// Returns whether Python code ran.
    fn prepare_once(&mut self, found: &[Found<'_>], task: Task<'_>) -> PyResult<bool> {
        self.checked = false;
        self.batch.clear();
        self.tensors.clear();
        self.kinds.clear();
        self.written.clear();
        self.read.clear();
        self.writers.clear();
        self.readers.clear();
        for (i, one) in found.iter().enumerate() {
            let parameter = &task.parameters[one.parameter];
            let state = one.state(parameter);
            let zeroed = task.zeroes(parameter.group);
            let averages = task.averages(state);
            let operands = one.read(task.source, Located { parameter, state, form: task.form }, averages, zeroed)?;
            for (operand, span) in operands.spans() {
                if operand == GRAD && !zeroed {
                    self.read.push(span);
                    self.readers.push((i, operand));
                } else {
                    self.written.push(span);
                    self.writers.push((i, operand));
                }
            }
            let spec = operands.spec();
            let Some((update, _)) = &task.recipes[parameter.group].update else { continue };
            if !state.is_of(update.state()) || averages != spec.average || task.lacks_average(state) {
                continue;
            }
            let kind = task.kind(parameter, state, spec.dtype);
            // Parameters of one group mostly share all of it, and so a kernel.
            if self.kinds.last() != Some(&kind) {
                self.kinds.push(kind);
                self.batch.add_kernel(spec);
            }
            let slot = self.kinds.len() - 1;
            self.tensors.push((one.parameter, slot));
            // SAFETY: the step is not taken unless `check_overlaps` finds that nothing overlaps. The batch is used by `run` and its
            // like alone, whose callers promise that no Python code ran since this, which could free an array or give it other
            // memory: the references in `found` and `parameters` keep it alive, but not where it is.
            self.batch.push(unsafe { operands.tensor() }, slot, one.parameter);
        }
        self.check_overlaps(found, task)
    }

    fn check_overlaps(&mut self, found: &[Found<'_>], task: Task<'_>) -> PyResult<bool> {
        let mut python_ran = false;
        let Self { overlaps, written, read, writers, readers, .. } = self;
        overlaps.check(written, read, |meeting| {
            python_ran = true;
            let (a, b) = match meeting {
                Overlap::Written(a, b) => (writers[a], writers[b]),
                Overlap::Read(a, b) => (writers[a], readers[b]),
            };
            let located = |i: usize| {
                let parameter = &task.parameters[found[i].parameter];
                Located { parameter, state: found[i].state(parameter), form: task.form }
            };
            let array = |(i, operand): (usize, usize)| found[i].operand(located(i), operand);
            let place = |(i, operand): (usize, usize)| located(i).place(operand);
            match (array(a), array(b)) {
                (Some(first), Some(second)) => check_apart(&first, &second, || (place(a), place(b))),
                _ => Err(error::bad_index(a.1)),
            }
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
    fn read<'a>(
        &'a self,
        source: Source,
        located: Located<'a>,
        averages: bool,
        zeroed: bool,
    ) -> PyResult<Operands<'a>> {
        let py = self.weight.py();
        let states = located.state.arrays.iter().enumerate().map(move |(k, state)| (STATE + k, state.bind(py)));
        let average =
            located.state.average.iter().filter(move |_| averages).map(move |array| (AVERAGE, array.bind(py)));
        let arrays =
            iter::once((WEIGHT, &self.weight)).chain(iter::once((GRAD, &self.grad))).chain(states).chain(average);
        Operands::read(source, &arrays, zeroed, &located)
    }

    /// Finds out what is to be known of the types of all arrays before they can be read, which may run Python code.
    fn learn(&self, source: Source, parameter: &Parameter) -> PyResult<()> {
        let (py, state) = (self.weight.py(), self.state(parameter));
        [&self.weight, &self.grad].into_iter().try_for_each(|array| source.learn(array))?;
        state.arrays.iter().chain(&state.average).try_for_each(|array| source.learn(array.bind(py)))
    }

    fn operand(&self, located: Located<'_>, operand: usize) -> Option<Bound<'py, PyAny>> {
        let py = self.weight.py();
        match operand {
            WEIGHT => Some(self.weight.clone()),
            GRAD => Some(self.grad.clone()),
            AVERAGE => located.state.average.as_ref().map(|array| array.bind(py).clone()),
            state => located.state.arrays.get(state - STATE).map(|array| array.bind(py).clone()),
        }
    }
}

/// A step of fewer elements is over before the interpreter could be given up and had back.
const DETACH: usize = 32 << 10;

/// Works on a batch, without the interpreter if it is large.
fn detached<T: Send>(
    py: Python<'_>,
    batch: &mut Batch<'static>,
    work: impl FnOnce(&mut Batch<'static>) -> T + Send,
) -> T {
    if batch.total() < DETACH { work(batch) } else { calls::detached(py, || work(batch)) }
}

/// Checks weights that come together in an optimizer: each by itself, and against each other. Returns their memory.
pub(super) fn check_weights<'a, 'py: 'a>(
    weights: impl Iterator<Item = (&'a Parameter, &'a Bound<'py, PyAny>)>,
    form: Form,
) -> PyResult<Vec<Span>> {
    let mut spans = Vec::new();
    let mut owners = Vec::new();
    let none = State::NONE;
    for (parameter, array) in weights {
        let located = Located { parameter, state: &none, form };
        for (_, span) in Operands::read(Source::NumPy, &iter::once((WEIGHT, array)), false, &located)?.spans() {
            spans.push(span);
            owners.push((located, array));
        }
    }
    OverlapChecker::default().check(&spans, &[], |meeting| {
        let (Overlap::Written(a, b) | Overlap::Read(a, b)) = meeting;
        let ((a, first), (b, second)) = (owners[a], owners[b]);
        check_apart(first, second, || (a.place(WEIGHT), b.place(WEIGHT)))
    })?;
    Ok(spans)
}

/// Checks that gradients which are to be set to zero have no element in common with weights, where no step compares the two.
pub(super) fn check_zeroed(found: &[Found<'_>], weights: &[Bound<'_, PyAny>], task: Task<'_>) -> PyResult<()> {
    let span = |array| Header::of(array, task.source).and_then(|header| header.span(header.dtype()?));
    let zeroed = found.iter().filter(|one| task.zeroes(task.parameters[one.parameter].group));
    let (grads, written): (Vec<_>, Vec<_>) = zeroed.filter_map(|one| Some((one, span(&one.grad)?))).unzip();
    let owned = weights.iter().enumerate().filter_map(|owner| Some((owner, span(owner.1)?)));
    let (owners, read): (Vec<_>, Vec<_>) = owned.unzip();
    let place = |number: usize, operand| {
        let located = Located { parameter: &task.parameters[number], state: &State::NONE, form: task.form };
        located.place(operand)
    };
    OverlapChecker::default().check(&written, &read, |meeting| match meeting {
        Overlap::Read(a, b) => {
            let (one, (number, weight)) = (grads[a], owners[b]);
            check_apart(weight, &one.grad, || (place(number, WEIGHT), place(one.parameter, GRAD)))
        }
        // That is seen when they are made ready.
        Overlap::Written(..) => Ok(()),
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
    let plain = |array| ndarray.call_method1("view", (as_numpy(array)?, &ndarray));
    let shared = numpy.call_method1("shares_memory", (plain(first)?, plain(second)?, MAX_WORK));
    if shared.and_then(|shared| shared.extract::<bool>()).unwrap_or(true) {
        let (first, second) = places();
        return Err(error::share_memory(&first, &second));
    }
    Ok(())
}

/// An array of NumPy, or such a view of a tensor.
pub(super) fn as_numpy<'py>(array: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    match Header::of(array, Source::NumPy) {
        Some(_) => Ok(array.clone()),
        None => array.call_method0("detach")?.call_method0("numpy"),
    }
}
