//! The prepared list of an optimizer: its groups and parameters, and the way of a step through them.

use std::collections::{HashMap, HashSet};
use std::mem;

use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyMapping, PyString, PyTuple, PyType};

use super::accumulator::{Accumulator, Waiting};
use super::buffers::{Header, Source, is_held};
use super::calls::InUse;
use super::dlpack::Exchange;
use super::error;
use super::gradients::{Form, Found, Groups};
use super::home::{Home, Terms};
use super::operands::Places;
use super::parameter::{Located, Parameter, Recipe, State};
use super::step::{Step, Task, as_numpy, check_weights, check_zeroed};
use super::structure::{Node, Place};
use crate::engine::{
    Average, Decay, DefaultMode, Factor, Norm, Signature, SpanSet, Stages, Stats, WEIGHT, create, signature,
};

/// Moves the parameters of one optimizer.
#[pyclass(module = "lrcore._lrcore")]
pub(crate) struct Stepper {
    groups: Groups,
    recipes: Vec<Recipe>,
    parameters: Vec<Parameter>,
    /// The names of all parameters.
    names: HashSet<String>,
    /// The memory in which parameters lay when they were last looked at, as their groups were added.
    memory: SpanSet,
    /// How many parameters of other groups there were when all of them were last looked at.
    checked: usize,
    /// How many steps have been taken.
    taken: u64,
    /// `make_state(weight, initial)` gives a new state array.
    make_state: Py<PyAny>,
    source: Source,
    /// What has to be asked and told, where the arrays are another library's.
    library: Option<Library>,
    options: Options,
    step: Step,
    accumulator: Accumulator,
    report: Report,
}

/// A library of tensors, each of which has its gradient as an attribute.
struct Library {
    /// `make_count(value)` gives a tensor of one number.
    make_count: Py<PyAny>,
    /// `written(tensors)` is told what a step has written.
    written: Py<PyAny>,
}

/// What all groups have in common.
#[derive(Default)]
struct Options {
    /// Which norm of the gradients is wanted.
    norm: Option<Norm>,
    /// What it is clipped to.
    clip_norm: Option<f64>,
    /// Whether a step with gradients that are not finite is left out.
    skip_nonfinite: bool,
    average: Option<Average>,
    stats: bool,
    /// Whether the squares of accumulated gradients are wanted.
    squares: bool,
}

/// What there is to say of the last step, beside its number.
#[derive(Default)]
struct Report {
    grad_norm: Option<f64>,
    /// The reason why the step was left out, if it was.
    fault: Option<Fault>,
    stats: Vec<(usize, usize, Stats)>,
    /// Of gradients that were accumulated: how many, the mean of their squared norms, and that of the norm of their mean.
    squares: Option<(u64, f64, f64)>,
    /// Parameters whose state is new.
    made: Vec<usize>,
}

#[pymethods]
impl Stepper {
    /// `tensors` are their type, `make_count` and `written`: then these are the parameters, and not arrays of NumPy.
    #[new]
    #[pyo3(signature = (grouped, make_state, *, tensors=None))]
    fn new(
        grouped: bool,
        make_state: Py<PyAny>,
        tensors: Option<(Bound<'_, PyType>, Py<PyAny>, Py<PyAny>)>,
    ) -> PyResult<Self> {
        let (source, library) = match tensors {
            None => (Source::NumPy, None),
            Some((kind, make_count, written)) => {
                (Source::Tensors(Exchange::of(&kind)?), Some(Library { make_count, written }))
            }
        };
        Ok(Self {
            groups: Groups::new(grouped, library.is_some()),
            recipes: Vec::new(),
            parameters: Vec::new(),
            names: HashSet::new(),
            memory: SpanSet::default(),
            checked: 0,
            taken: 0,
            make_state,
            source,
            library,
            options: Options::default(),
            step: Step::default(),
            accumulator: Accumulator::default(),
            report: Report::default(),
        })
    }

    /// Adds a group: a structure of parameters, and a name to tell them from those of other groups. Returns their names. With
    /// a second group, gradients come in groups.
    fn add_group(slf: &Bound<'_, Self>, params: &Bound<'_, PyAny>, name: &str) -> PyResult<Vec<String>> {
        let mut stepper = Self::change(slf)?;
        let form = stepper.groups.form_with_another();
        let group = stepper.groups.len();
        let root = form.params(group);
        let mut places = Vec::new();
        let mut arrays = Vec::new();
        let first = stepper.parameters.len();
        let node = Node::build(params, stepper.source, &root, &mut |place, array| {
            arrays.push(array.clone());
            places.push(place);
            first + places.len() - 1
        })?;
        if places.is_empty() && stepper.library.is_none() {
            return Err(error::empty(&root));
        }
        for array in &arrays {
            stepper.source.learn(array)?;
        }
        if stepper.library.is_none() {
            check_same_again(params, &node, &root, &places, (first, &arrays))?;
        }
        let prefix = (form != Form::Single).then_some(name);
        stepper.name(&mut places, prefix, params.cast::<PyMapping>().is_ok(), &root)?;
        let parameter = |place| Parameter { place, group, state: State::NONE, decays: true, may_be_lazy: true };
        let parameters: Vec<_> = places.into_iter().map(parameter).collect();
        // Of tensors only those that get a gradient need to be fit for a step.
        let mut spans = Vec::new();
        if stepper.library.is_none() {
            let own = parameters.iter().zip(&arrays);
            spans = check_weights(own.clone(), form)?;
            // The parameters of other groups are looked at again where memory meets, or else each time that their number has
            // doubled: so to add groups one by one takes a time that is linear in their number. A step looks at all of them.
            let meets = spans.iter().any(|&span| stepper.memory.overlaps(span));
            if meets || stepper.parameters.len() >= 2 * stepper.checked {
                stepper.checked = stepper.parameters.len();
                let known = stepper.present_weights(params.py())?;
                spans = check_weights(stepper.parameters.iter().zip(&known).chain(own), form)?;
                stepper.memory = SpanSet::default();
            }
        }
        let names: Vec<_> = parameters.iter().map(|parameter| parameter.place.name.clone()).collect();
        stepper.groups.push(params, node)?;
        for span in spans {
            stepper.memory.insert(span);
        }
        stepper.names.extend(names.iter().cloned());
        stepper.parameters.extend(parameters);
        stepper.recipes.push(Recipe::default());
        Ok(names)
    }

    /// Sets the rule of a group, the values of its hyperparameters, and its stages.
    #[pyo3(signature = (
        group, rule, values, *, decay="coupled", decay_rate=0.0, maximize=false, clip_value=None, bounds=None, zero_grads=false
    ))]
    #[expect(clippy::too_many_arguments, clippy::needless_pass_by_value, reason = "keywords name them in Python")]
    fn set_group(
        slf: &Bound<'_, Self>,
        group: usize,
        rule: &str,
        values: Vec<f64>,
        decay: &str,
        decay_rate: f64,
        maximize: bool,
        clip_value: Option<f64>,
        bounds: Option<(f64, f64)>,
        zero_grads: bool,
    ) -> PyResult<()> {
        let Signature { hyperparameters, .. } = signature(rule).ok_or_else(|| error::unknown_rule(rule))?;
        let update = create(rule, &values).ok_or_else(|| error::wrong_count(rule, hyperparameters, values.len()))?;
        let keys = update.state().iter().map(|name| PyString::intern(slf.py(), name).unbind()).collect();
        let decay = Decay::from_name(decay).ok_or_else(|| error::unknown_decay(decay))?;
        let stages = Stages { maximize, decay, decay_rate, clip_value, bounds, zero_grads, ..Stages::NONE };
        let mut stepper = Self::change(slf)?;
        let recipe = stepper.recipes.get_mut(group).ok_or_else(|| error::bad_index(group))?;
        *recipe = Recipe { update: Some((update, stages)), keys };
        Ok(())
    }

    /// Sets what all groups have in common. The norm is "1", "2" or "inf", or none is wanted; the average is
    /// `("ema", decay, warmup)` or `("swa", start, every)`.
    #[pyo3(signature = (*, norm, clip_norm, skip_nonfinite, average, stats, squares))]
    fn set_options(
        slf: &Bound<'_, Self>,
        norm: Option<&str>,
        clip_norm: Option<f64>,
        skip_nonfinite: bool,
        average: Option<&Bound<'_, PyAny>>,
        stats: bool,
        squares: bool,
    ) -> PyResult<()> {
        let norm = norm.map(|name| Norm::from_name(name).ok_or_else(|| error::unknown_norm(name))).transpose()?;
        let average = average.map(average_from).transpose()?;
        Self::change(slf)?.options = Options { norm, clip_norm, skip_nonfinite, average, stats, squares };
        Ok(())
    }

    /// Sets whether weight decay acts on a parameter.
    fn set_decays(slf: &Bound<'_, Self>, parameter: usize, decays: bool) -> PyResult<()> {
        let mut stepper = Self::change(slf)?;
        stepper.parameters.get_mut(parameter).ok_or_else(|| error::bad_index(parameter))?.decays = decays;
        Ok(())
    }

    /// Sets a parameter's state arrays, by name, with its average, and the numbers of steps and of weights that they have seen.
    fn set_state(
        slf: &Bound<'_, Self>,
        parameter: usize,
        t: u64,
        averaged: u64,
        arrays: &Bound<'_, PyDict>,
    ) -> PyResult<()> {
        let mut stepper = Self::change(slf)?;
        let parameter = stepper.parameters.get_mut(parameter).ok_or_else(|| error::bad_index(parameter))?;
        parameter.state = State::from_mapping(t, averaged, arrays, &parameter.place.name)?;
        Ok(())
    }

    /// Keeps the state of each parameter in a mapping of its own, from names to arrays and counts. They are read before each
    /// step. Without `counts_steps` it is only known whether a parameter has seen any.
    #[expect(clippy::needless_pass_by_value, reason = "PyO3 gives no slice of objects")]
    fn keep_state_in(slf: &Bound<'_, Self>, mappings: Vec<Bound<'_, PyDict>>, counts_steps: bool) -> PyResult<()> {
        let mut stepper = Self::change(slf)?;
        for (parameter, mapping) in stepper.parameters.iter_mut().zip(&mappings) {
            parameter.state = State { home: Some(Box::new(Home::new(mapping, counts_steps))), ..State::NONE };
        }
        Ok(())
    }

    /// Of the last step: the numbers of parameters whose state is new.
    #[getter]
    fn made(slf: &Bound<'_, Self>) -> PyResult<Vec<usize>> {
        Ok(Self::look(slf)?.report.made.clone())
    }

    /// The state arrays of each parameter, by name.
    #[getter]
    fn states<'py>(slf: &Bound<'py, Self>) -> PyResult<Vec<Bound<'py, PyDict>>> {
        Self::look(slf)?.parameters.iter().map(|parameter| parameter.state.to_dict(slf.py())).collect()
    }

    /// The arrays that are the parameters now.
    fn weights<'py>(slf: &Bound<'py, Self>) -> PyResult<Vec<Bound<'py, PyAny>>> {
        Self::look(slf)?.present_weights(slf.py())
    }

    /// How many steps have been taken.
    #[getter]
    fn get_taken(slf: &Bound<'_, Self>) -> PyResult<u64> {
        Ok(Self::look(slf)?.taken)
    }

    #[setter]
    fn set_taken(slf: &Bound<'_, Self>, taken: u64) -> PyResult<()> {
        Self::change(slf)?.taken = taken;
        Ok(())
    }

    /// How many steps each parameter's state has seen.
    #[getter]
    fn counts(slf: &Bound<'_, Self>) -> PyResult<Vec<u64>> {
        Ok(Self::look(slf)?.parameters.iter().map(|parameter| parameter.state.t).collect())
    }

    /// How many weights the average of each parameter has seen.
    #[getter]
    fn averaged(slf: &Bound<'_, Self>) -> PyResult<Vec<u64>> {
        Ok(Self::look(slf)?.parameters.iter().map(|parameter| parameter.state.averaged).collect())
    }

    /// The group of each parameter.
    #[getter]
    fn group_of_each(slf: &Bound<'_, Self>) -> PyResult<Vec<usize>> {
        Ok(Self::look(slf)?.parameters.iter().map(|parameter| parameter.group).collect())
    }

    /// Takes one step, and returns how many have been taken. Gradients are divided by a number; without any, the mean of
    /// those that were accumulated is used, and with some, none may be waiting. After an error nothing has changed.
    ///
    /// `combine(norm, skip)` is called with the norm of the gradients, if one is wanted, and whether the step is to be skipped,
    /// and returns both for all processes together.
    #[pyo3(signature = (grads, divisor=1.0, combine=None))]
    fn step(
        slf: &Bound<'_, Self>,
        grads: &Bound<'_, PyAny>,
        divisor: f64,
        combine: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<u64> {
        let py = slf.py();
        let _mode = DefaultMode::enter();
        let mut stepper = Self::change(slf)?;
        let Self {
            groups,
            recipes,
            parameters,
            taken,
            make_state,
            source,
            library,
            options,
            step,
            accumulator,
            report,
            ..
        } = &mut *stepper;
        if !grads.is_none() && accumulator.count > 0 {
            return Err(error::others_wait(accumulator.count));
        }
        let own = accumulator.count > 0;
        let (mut found, form) = if own {
            (accumulator.found(&groups.weights(py, parameters.len())?), groups.form())
        } else if grads.is_none() && library.is_some() {
            (groups.find_attached(py, parameters.len())?, groups.form())
        } else {
            groups.find(grads, parameters.len())?
        };
        let mut as_it_was = true;
        if library.is_none() {
            check_held(&found, parameters, form)?;
        }
        if let Some(Library { make_count, .. }) = library {
            let terms = Terms { source: *source, make_count, averages: options.average.is_some() };
            as_it_was = fetch(py, &mut found, parameters, recipes, terms)?;
        }
        let scale = Factor::ONE.over(divisor.into());
        let scale = if own { scale.over(accumulator.divisor().into()) } else { scale };
        let (average, number) = (options.average, *taken + 1);
        let task = Task { form, source: *source, parameters, recipes, average, number, zero_grads: own };
        // Whether the interpreter is held and no Python code runs from the reading of counts to the end: then memory stays where it lies.
        let mut held = step.ready(&mut found, task, make_state)? && step.is_short() && as_it_was;
        *report = Report::default();
        let factor = match options.norm {
            None => scale,
            Some(norm) => {
                // SAFETY: nothing ran since the step was made ready.
                let mut value = unsafe { step.grad_norm(py, norm, scale) };
                // Where a norm is larger than the largest number of a dtype, or is no number, an element may be.
                let may_be_bad = options.skip_nonfinite && !value.is_at_most(step.batch.largest_of_dtypes());
                let bad = if may_be_bad { step.batch.first_nonfinite(scale) } else { None };
                let mut skips = bad.is_some();
                if let Some(combine) = combine {
                    let combined: (f64, bool) = combine.call1((value.value(), skips))?.extract()?;
                    (value, skips) = (combined.0.into(), combined.1);
                    // Python code ran, so all is read again before anything is written.
                    step.ready(&mut found, task, make_state)?;
                    held = false;
                }
                report.grad_norm = Some(value.value());
                if skips {
                    let place = |bad: usize| Ok::<_, PyErr>((Some(found[bad].parameter), locate(&found[bad].grad)?));
                    report.fault = Some(bad.map(place).transpose()?.unwrap_or_default());
                    // As above.
                    step.ready(&mut found, task, make_state)?;
                    step.batch.zero_grads();
                    if let Some(Library { written, .. }) = library {
                        let grads = zeroed(&found, task);
                        written.call1(py, (PyList::new(py, grads)?,))?;
                    }
                    accumulator.forget(own);
                    return Ok(*taken);
                }
                options.clip_norm.map_or(scale, |most| scale.times(value.clipped_to(most)))
            }
        };
        step.fold(task, factor)?;
        let sample = if own { accumulator.sampled() } else { None };
        if options.stats {
            // SAFETY: nothing ran since the step was made ready; to compute a norm and to fold run no Python code.
            let stats = unsafe { step.run_with_stats(py, sample) };
            report.stats = found.iter().zip(stats).map(|(found, (len, stats))| (found.parameter, len, stats)).collect();
        } else {
            // SAFETY: as above.
            unsafe { step.run(py, sample) };
        }
        report.squares = sample.and_then(|sample| accumulator.squares(sample, step.batch.sampled_squares(sample)));
        let touched = library.as_ref().map(|library| {
            let weights = found.iter().map(|one| one.weight.clone());
            (library, weights.chain(zeroed(&found, task)).collect::<Vec<_>>())
        });
        // SAFETY: where all is held, nothing ran since counts were read: state was neither made nor is it new.
        unsafe { count(py, &mut found, parameters, (average, number), &mut report.made, (!held).then_some(*source))? };
        accumulator.forget(own);
        *taken += 1;
        if let Some((Library { written, .. }, tensors)) = touched {
            written.call1(py, (PyList::new(py, tensors)?,))?;
        }
        Ok(*taken)
    }

    /// Adds gradients, multiplied by a weight, to those that are waiting, and returns how often that was done since they were
    /// used.
    #[pyo3(signature = (grads, weight=1.0))]
    fn accumulate(slf: &Bound<'_, Self>, grads: &Bound<'_, PyAny>, weight: f64) -> PyResult<u64> {
        let py = slf.py();
        let _mode = DefaultMode::enter();
        let mut stepper = Self::change(slf)?;
        let Self { groups, recipes, parameters, taken, make_state, accumulator, options, .. } = &mut *stepper;
        if options.squares && !accumulator.would_be_even(weight) {
            return Err(error::uneven(accumulator.mean_weight(), weight));
        }
        let (found, form) = groups.find(grads, parameters.len())?;
        check_held(&found, parameters, form)?;
        let source = Source::NumPy;
        let task = Task { form, source, parameters, recipes, average: None, number: 1, zero_grads: false };
        if (0..recipes.len()).any(|group| task.zeroes(group)) {
            check_zeroed(&found, &groups.weights(py, parameters.len())?, task)?;
        }
        // Another sample at each step, and the same one in a run that goes on elsewhere.
        let phase = options.squares.then(|| usize::try_from(*taken).unwrap_or_default());
        accumulator.add(py, found, weight, task, make_state, phase)
    }

    /// How many micro-batches are waiting.
    #[getter]
    fn waiting(slf: &Bound<'_, Self>) -> PyResult<u64> {
        Ok(Self::look(slf)?.accumulator.count)
    }

    /// Of the last step, with the option `squares`: of how many micro-batches it used the mean, if of two or more, the mean of
    /// their squared norms, and that of the norm of their mean.
    #[getter]
    fn squares(slf: &Bound<'_, Self>) -> PyResult<Option<(u64, f64, f64)>> {
        Ok(Self::look(slf)?.report.squares)
    }

    /// What is waiting: of how many micro-batches, the sum of their weights, each parameter's number and sum, and where they were
    /// looked at, the stride and the phase of the sample and the sum of squares. None if there are none.
    #[getter]
    fn get_accumulated(slf: &Bound<'_, Self>) -> PyResult<Option<Waiting>> {
        Ok(Self::look(slf)?.accumulator.waiting(slf.py()))
    }

    #[setter]
    fn set_accumulated(slf: &Bound<'_, Self>, waiting: Option<Waiting>) -> PyResult<()> {
        let mut stepper = Self::change(slf)?;
        let Self { parameters, recipes, accumulator, .. } = &mut *stepper;
        *accumulator =
            waiting.map_or_else(Accumulator::default, |waiting| Accumulator::with(waiting, parameters, recipes));
        Ok(())
    }

    /// Of the last step: the norm of the gradients, if one was computed.
    #[getter]
    fn grad_norm(slf: &Bound<'_, Self>) -> PyResult<Option<f64>> {
        Ok(Self::look(slf)?.report.grad_norm)
    }

    /// Of the last step, if it was left out: the number of a parameter whose gradient is not finite, unless it is one of another
    /// process, and where and what it is.
    #[getter]
    fn fault(slf: &Bound<'_, Self>) -> PyResult<Option<Fault>> {
        Ok(Self::look(slf)?.report.fault.clone())
    }

    /// Of the last step, for each parameter that it moved: its number, its elements, and norms of weight, gradient and
    /// update, the largest update, and how many elements of the gradient are 0, and not finite.
    #[getter]
    fn stats(slf: &Bound<'_, Self>) -> PyResult<Vec<(usize, usize, [f64; 6])>> {
        let of = |&(parameter, len, stats): &(usize, usize, Stats)| {
            let Stats { weight_norm, grad_norm, update_norm, update_max, zeros, nonfinite } = stats;
            (parameter, len, [weight_norm, grad_norm, update_norm, update_max, zeros, nonfinite])
        };
        Ok(Self::look(slf)?.report.stats.iter().map(of).collect())
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.make_state)?;
        if let Some(Library { make_count, written }) = &self.library {
            visit.call(make_count)?;
            visit.call(written)?;
        }
        self.groups.traverse(&visit)?;
        self.accumulator.traverse(&visit)?;
        self.parameters.iter().try_for_each(|parameter| parameter.state.traverse(&visit))
    }

    fn __clear__(&mut self) {
        self.groups.clear();
        self.parameters.clear();
        self.names.clear();
        self.recipes.clear();
        self.accumulator = Accumulator::default();
        self.report = Report::default();
    }
}

fn average_from(given: &Bound<'_, PyAny>) -> PyResult<Average> {
    let (kind, first, second): (String, Bound<'_, PyAny>, Bound<'_, PyAny>) = given.extract()?;
    match kind.as_str() {
        "ema" => Ok(Average::Ema { decay: first.extract()?, warmup: second.extract()? }),
        "swa" => Ok(Average::Swa { start: first.extract()?, every: second.extract()? }),
        _ => Err(error::unknown_average(&kind)),
    }
}

/// The parameter whose gradient is not finite, where it is not, and its value there. The parameter is not known if it is one of
/// another process, the place if it is the factor that makes it infinite.
type Fault = (Option<usize>, Option<(Vec<usize>, String)>);

/// Finds the first element of an array that is not finite.
fn locate(array: &Bound<'_, PyAny>) -> PyResult<Option<(Vec<usize>, String)>> {
    let array = &as_numpy(array)?;
    let numpy = array.py().import("numpy")?;
    let bad = numpy.call_method1("logical_not", (numpy.call_method1("isfinite", (array,))?,))?;
    let places = numpy.call_method1("argwhere", (bad,))?;
    if places.len()? == 0 {
        return Ok(None);
    }
    let place: Vec<usize> = places.get_item(0)?.extract()?;
    // As text, since it may be a complex number.
    let value = array.get_item(PyTuple::new(array.py(), &place)?)?.str()?.to_string();
    Ok(Some((place, value)))
}

/// Checks that a structure gives the same memory each time that it is read, if not the same arrays. What it gave first is alive, so
/// memory that was made for it is not that of another.
fn check_same_again(
    params: &Bound<'_, PyAny>,
    node: &Node,
    root: &str,
    places: &[Place],
    (first, arrays): (usize, &[Bound<'_, PyAny>]),
) -> PyResult<()> {
    let mut other = None;
    let walked = node.walk(params.clone(), params.clone(), &mut |leaf, again, _| {
        let array = &arrays[leaf - first];
        let header = |array| Header::of(array, Source::NumPy);
        if !again.is(array) && !header(array).zip(header(&again)).is_some_and(|(one, other)| one.is_same_memory(other))
        {
            other = other.or(Some(leaf - first));
        }
    });
    walked.map_err(|fault| fault.into_error(params.py(), root, root))?;
    other.map_or(Ok(()), |other| Err(error::not_kept(&format!("{root}{}", places[other].path))))
}

/// Checks that someone else has the weights, so that what is done to them can be seen.
fn check_held(found: &[Found<'_>], parameters: &[Parameter], form: Form) -> PyResult<()> {
    match found.iter().find(|one| !is_held(&one.weight)) {
        None => Ok(()),
        Some(one) => {
            let parameter = &parameters[one.parameter];
            Err(error::not_kept(&Located { parameter, state: &State::NONE, form }.place(WEIGHT)))
        }
    }
}

/// Resolves gradients of a library, and has the state of their parameters where steps read it. Returns whether all is what it was.
///
/// What may run Python code comes first; then counts are read, and nothing runs until whoever called this does something. So where they
/// lie is known for certain if the step runs no Python code either.
fn fetch(
    py: Python<'_>,
    found: &mut [Found<'_>],
    parameters: &mut [Parameter],
    recipes: &[Recipe],
    terms: Terms<'_>,
) -> PyResult<bool> {
    let mut as_it_was = true;
    for one in &mut *found {
        let known = &mut parameters[one.parameter].may_be_lazy;
        as_it_was &= !*known;
        *known = *known && one.resolve(terms.source)?;
    }
    // A second time if a count can't be read any more that was readable at the step before.
    for certain in [true, false] {
        for one in &*found {
            let Parameter { group, state, .. } = &mut parameters[one.parameter];
            let Recipe { update: Some((update, _)), keys } = &recipes[*group] else { continue };
            as_it_was &= state.look_up(py, update.state(), keys, certain, terms)?;
        }
        if found.iter().all(|one| parameters[one.parameter].state.read_counts(py, terms)) {
            return Ok(as_it_was);
        }
    }
    Err(error::counts_change())
}

/// Counts a step for the parameters that it moved, gives them the state that was made for them, and adds their numbers to `made`.
///
/// What was found is dropped by the caller, at the end: what is freed then may run Python code.
///
/// # Safety
/// That of [`State::keep`], which the source is for.
unsafe fn count(
    py: Python<'_>,
    found: &mut [Found<'_>],
    parameters: &mut [Parameter],
    (average, number): (Option<Average>, u64),
    made: &mut Vec<usize>,
    source: Option<Source>,
) -> PyResult<()> {
    for found in found {
        let state = &mut parameters[found.parameter].state;
        let is_new = found.made.is_some() || state.home.as_ref().is_some_and(|home| home.is_fresh());
        if is_new {
            made.push(found.parameter);
        }
        if let Some(made) = found.made.take() {
            state.becomes(*made);
        }
        state.t += 1;
        if average.is_some_and(|average| average.coefficient(number, state.averaged).is_some()) {
            state.averaged += 1;
        }
        // SAFETY: the caller's promise.
        unsafe { state.keep(py, is_new, source)? };
    }
    Ok(())
}

/// The gradients that a step sets to zero.
fn zeroed<'a, 'py>(found: &'a [Found<'py>], task: Task<'a>) -> impl Iterator<Item = Bound<'py, PyAny>> + 'a {
    let is_zeroed = move |one: &&Found<'_>| task.zeroes(task.parameters[one.parameter].group);
    found.iter().filter(is_zeroed).map(|one| one.grad.clone())
}

impl Stepper {
    fn look<'py>(slf: &Bound<'py, Self>) -> PyResult<InUse<PyRef<'py, Self>>> {
        InUse::begin(slf.py(), || slf.try_borrow().map_err(|_| error::busy()))
    }

    fn change<'py>(slf: &Bound<'py, Self>) -> PyResult<InUse<PyRefMut<'py, Self>>> {
        InUse::begin(slf.py(), || slf.try_borrow_mut().map_err(|_| error::busy()))
    }

    /// The arrays that are the parameters now.
    fn present_weights<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyAny>>> {
        let weights = self.groups.weights(py, self.parameters.len())?;
        for (parameter, weight) in self.parameters.iter().zip(&weights) {
            if Header::of(weight, self.source).is_none() {
                let located = Located { parameter, state: &parameter.state, form: self.groups.form() };
                return Err(error::not_an_array(&located.place(WEIGHT), weight));
            }
        }
        Ok(weights)
    }

    /// Makes the names of a group's parameters unique: those from keys stand for themselves unless one is taken, others come
    /// after the group's name.
    fn name(&self, places: &mut [Place], group: Option<&str>, named_by_keys: bool, root: &str) -> PyResult<()> {
        let group = group.filter(|_| !named_by_keys || places.iter().any(|place| self.names.contains(&place.name)));
        let mut own = HashMap::new();
        for (number, place) in places.iter_mut().enumerate() {
            place.name = match (group, place.name.is_empty()) {
                (Some(group), true) => group.to_owned(),
                (Some(group), false) => format!("{group}.{}", place.name),
                (None, true) => "0".to_owned(),
                (None, false) => mem::take(&mut place.name),
            };
            if let Some(group) = group.filter(|_| self.names.contains(&place.name)) {
                return Err(error::same_name_in_groups(&place.name, &format!("{root}{}", place.path), group));
            }
            own.entry(place.name.clone()).or_insert(number);
        }
        for (number, place) in places.iter().enumerate() {
            let first = own[&place.name];
            if first != number {
                let [place_of_first, place_of_this] = [first, number].map(|at| format!("{root}{}", places[at].path));
                return Err(error::same_name(&place.name, &place_of_this, &place_of_first));
            }
        }
        Ok(())
    }
}
