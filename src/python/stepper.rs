//! The prepared list of an optimizer: its parameters, groups and state arrays, and the way of one step through them.

use std::collections::HashSet;
use std::{iter, mem, ptr};

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyMapping};

use super::buffers::Header;
use super::error;
use super::gradients::{self, Form, Found, Group};
use super::operands::{Operands, Places};
use super::structure::{Node, Place};
use crate::engine::{
    Batch, Decay, Describe, Dtype, GRAD, Make, Meeting, Overlaps, STATE, Span, Stages, Update, WEIGHT,
};
use crate::rules;

/// A step of fewer elements is over before the interpreter could be given up and had back.
const DETACH: usize = 32 << 10;

/// Moves the parameters of one optimizer.
#[pyclass(module = "lrcore._lrcore")]
pub(crate) struct Stepper {
    /// Whether gradients come group by group, and not in the one structure that the parameters have.
    grouped: bool,
    groups: Vec<Group>,
    recipes: Vec<Recipe>,
    parameters: Vec<Parameter>,
    /// How many steps have been taken.
    taken: u64,
    step: Step,
}

/// How the parameters of a group move; nothing before it is first set.
#[derive(Default)]
struct Recipe {
    update: Option<Box<dyn Update>>,
    stages: Option<Stages>,
}

impl Recipe {
    fn state(&self) -> &'static [&'static str] {
        self.update.as_ref().map_or(&[], |update| update.state())
    }
}

struct Parameter {
    place: Place,
    group: usize,
    /// How many steps it has taken.
    t: u64,
    state_names: &'static [&'static str],
    state: Vec<Py<PyAny>>,
}

impl Parameter {
    /// Whether its state arrays are those.
    fn has(&self, names: &'static [&'static str]) -> bool {
        // The names of a rule are mostly the same memory, which is quicker to see than that they are the same text.
        ptr::eq(self.state_names, names) || self.state_names == names
    }
}

/// A parameter, and the form that the structure around it is in.
struct Located<'a>(&'a Parameter, Form);

impl Places for Located<'_> {
    fn place(&self, operand: usize) -> String {
        let Self(Parameter { place: Place { name, path }, group, state_names, .. }, form) = self;
        match operand {
            WEIGHT => format!("{}{path}", form.params(*group)),
            GRAD => format!("{}{path}", form.grads(*group)),
            state => format!("state[{name:?}][{:?}]", state_names[state - STATE]),
        }
    }
}

/// What came of a step.
#[derive(IntoPyObject)]
enum Outcome<'py> {
    /// How many have been taken, this one included.
    Taken(u64),
    /// The parameters that still need state arrays: their numbers and weights.
    Needs(Vec<(usize, Bound<'py, PyAny>)>),
}

/// What a step works with, kept to save its memory.
#[derive(Default)]
struct Step {
    batch: Batch<'static>,
    overlaps: Overlaps,
    written: Vec<Span>,
    read: Vec<Span>,
    /// Which found parameter and operand each span belongs to.
    writers: Vec<(usize, usize)>,
    readers: Vec<(usize, usize)>,
}

#[pymethods]
impl Stepper {
    #[new]
    fn new(grouped: bool) -> Self {
        Self {
            grouped,
            groups: Vec::new(),
            recipes: Vec::new(),
            parameters: Vec::new(),
            taken: 0,
            step: Step::default(),
        }
    }

    /// Adds a group: a structure of parameters, and a name to tell them from those of other groups. Returns their names.
    fn add_group(&mut self, params: &Bound<'_, PyAny>, name: &str) -> PyResult<Vec<String>> {
        let grouped = self.grouped || !self.groups.is_empty();
        let form = if grouped { Form::Groups } else { Form::Single };
        let group = self.groups.len();
        let root = form.params(group);
        let mut places = Vec::new();
        let mut arrays = Vec::new();
        let first = self.parameters.len();
        let node = Node::build(params, &root, &mut |place, array| {
            arrays.push(array.clone());
            places.push(place);
            first + places.len() - 1
        })?;
        if places.is_empty() {
            return Err(error::empty(&root));
        }
        self.name(&mut places, grouped.then_some(name), params.cast::<PyMapping>().is_ok(), &root)?;
        let parameter = |place| Parameter { place, group, t: 0, state_names: &[], state: Vec::new() };
        let parameters: Vec<_> = places.into_iter().map(parameter).collect();
        self.check_weights(&parameters, &arrays, form)?;
        let names = parameters.iter().map(|parameter| parameter.place.name.clone()).collect();
        self.parameters.extend(parameters);
        self.groups.push(Group { params: params.clone().unbind(), node });
        self.recipes.push(Recipe::default());
        self.grouped = grouped;
        Ok(names)
    }

    /// Sets the rule of a group, the values of its hyperparameters, and its stages.
    #[pyo3(signature = (group, rule, values, *, lr, weight_decay, decay, maximize))]
    #[expect(clippy::too_many_arguments, clippy::needless_pass_by_value, reason = "keywords name them in Python")]
    fn set_group(
        slf: &Bound<'_, Self>,
        group: usize,
        rule: &str,
        values: Vec<f64>,
        lr: f64,
        weight_decay: f64,
        decay: &str,
        maximize: bool,
    ) -> PyResult<()> {
        let update = rules::find(rule, Make(&values)).ok_or_else(|| error::unknown_rule(rule))?;
        let update = update.ok_or_else(|| {
            let expected = rules::find(rule, Describe).map_or(&[][..], |signature| signature.hyperparameters);
            error::wrong_count(rule, expected, values.len())
        })?;
        let decay = Decay::named(decay).ok_or_else(|| error::unknown_decay(decay))?;
        let mut stepper = slf.try_borrow_mut().map_err(|_| error::busy())?;
        let recipe = stepper.recipes.get_mut(group).ok_or_else(|| error::bad_index(group))?;
        *recipe = Recipe { update: Some(update), stages: Some(Stages { maximize, decay, weight_decay, lr }) };
        Ok(())
    }

    /// The state arrays that a parameter must have, each with the value that it is filled with at first.
    fn state_of(&self, parameter: usize) -> PyResult<Vec<(&'static str, f64)>> {
        let parameter = self.parameters.get(parameter).ok_or_else(|| error::bad_index(parameter))?;
        let recipe = &self.recipes[parameter.group];
        let initial = recipe.update.as_ref().map_or_else(Vec::new, |update| update.initial());
        Ok(recipe.state().iter().copied().zip(initial).collect())
    }

    /// Sets a parameter's state arrays, by name, and the number of steps that it has taken. If one is not there that the rule
    /// has, the parameter needs state at the next step.
    fn set_state(&mut self, parameter: usize, t: u64, arrays: &Bound<'_, PyDict>) -> PyResult<()> {
        let parameter = self.parameters.get_mut(parameter).ok_or_else(|| error::bad_index(parameter))?;
        let names = self.recipes[parameter.group].state();
        let mut state = Vec::with_capacity(names.len());
        for name in names {
            state.extend(arrays.get_item(name)?.map(Bound::unbind));
        }
        parameter.t = t;
        let complete = state.len() == names.len();
        (parameter.state_names, parameter.state) = if complete { (names, state) } else { (&[][..], Vec::new()) };
        Ok(())
    }

    /// The arrays that are the parameters now.
    fn weights<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyAny>>> {
        let mut weights = Vec::with_capacity(self.parameters.len());
        for (i, group) in self.groups.iter().enumerate() {
            let params = group.params.bind(py);
            let place = if self.grouped { Form::Groups } else { Form::Single }.params(i);
            let walked = group.node.walk(params.clone(), params.clone(), &mut |_, weight, _| weights.push(weight));
            walked.map_err(|fault| fault.into_error(py, &place, &place))?;
        }
        Ok(weights)
    }

    /// How many steps have been taken.
    #[getter]
    fn get_taken(&self) -> u64 {
        self.taken
    }

    #[setter]
    fn set_taken(&mut self, taken: u64) {
        self.taken = taken;
    }

    /// How many steps each parameter has taken.
    #[getter]
    fn steps(&self) -> Vec<u64> {
        self.parameters.iter().map(|parameter| parameter.t).collect()
    }

    /// The group of each parameter.
    #[getter]
    fn group_of_each(&self) -> Vec<usize> {
        self.parameters.iter().map(|parameter| parameter.group).collect()
    }

    /// Takes one step, and returns how many have been taken. Or changes nothing, and returns the parameters that still need
    /// state arrays, as pairs of number and weight.
    fn step<'py>(slf: &Bound<'py, Self>, grads: &Bound<'py, PyAny>) -> PyResult<Outcome<'py>> {
        let mut stepper = slf.try_borrow_mut().map_err(|_| error::busy())?;
        let Self { grouped, groups, recipes, parameters, taken, step } = &mut *stepper;
        let (mut found, form) = gradients::find(groups, *grouped, grads)?;
        for Found { weight, grad, .. } in &mut found {
            if Header::of(grad).is_none()
                && let Some(array) = gradients::scalar_as_array(grad, weight)?
            {
                *grad = array;
            }
        }
        // Comparing memory runs Python code, which may change what was read before; then all is read again.
        while step.prepare(&found, form, parameters, recipes)? {}
        let lacking = |found: &&Found<'_>| {
            let parameter = &parameters[found.parameter];
            !parameter.has(recipes[parameter.group].state())
        };
        let stateless: Vec<_> = found.iter().filter(lacking).collect();
        if !stateless.is_empty() {
            let pair = |found: &Found<'py>| (found.parameter, found.weight.clone());
            return Ok(Outcome::Needs(stateless.into_iter().map(pair).collect()));
        }
        let batch = &mut step.batch;
        if batch.total() < DETACH {
            batch.run();
        } else {
            slf.py().detach(|| batch.run());
        }
        for found in &found {
            parameters[found.parameter].t += 1;
        }
        *taken += 1;
        Ok(Outcome::Taken(*taken))
    }
}

impl Stepper {
    /// Makes the names of a group's parameters unique: those from keys stand for themselves unless one is taken, others come
    /// after the group's name.
    fn name(&self, places: &mut [Place], group: Option<&str>, named_by_keys: bool, root: &str) -> PyResult<()> {
        let taken = |name: &str| self.parameters.iter().any(|parameter| parameter.place.name == name);
        let group = group.filter(|_| !named_by_keys || places.iter().any(|place| taken(&place.name)));
        let mut names = HashSet::new();
        for place in places {
            place.name = match (group, place.name.is_empty()) {
                (Some(group), true) => group.to_owned(),
                (Some(group), false) => format!("{group}.{}", place.name),
                (None, true) => "0".to_owned(),
                (None, false) => mem::take(&mut place.name),
            };
            if taken(&place.name) || !names.insert(place.name.clone()) {
                return Err(error::same_name(&place.name, &format!("{root}{}", place.path)));
            }
        }
        Ok(())
    }

    /// Checks the weights of a new group: each by itself, and against each other and those that are there already.
    fn check_weights(&self, new: &[Parameter], arrays: &[Bound<'_, PyAny>], form: Form) -> PyResult<()> {
        let Some(py) = arrays.first().map(Bound::py) else { return Ok(()) };
        let known = self.weights(py)?;
        let all: Vec<_> = self.parameters.iter().zip(&known).chain(new.iter().zip(arrays)).collect();
        let mut spans = Vec::new();
        let mut owners = Vec::new();
        for (parameter, array) in all {
            for (_, span) in Operands::read(&iter::once(array), &Located(parameter, form))?.spans() {
                spans.push(span);
                owners.push((Located(parameter, form), array));
            }
        }
        Overlaps::default().check(&spans, &[], |meeting| {
            let (Meeting::Written(a, b) | Meeting::Read(a, b)) = meeting;
            let ((a, first), (b, second)) = (&owners[a], &owners[b]);
            check_apart(first, second, || (a.place(WEIGHT), b.place(WEIGHT)))
        })
    }
}

impl Step {
    /// Reads and checks all that a step touches, before anything is written, and fills the batch. Returns whether Python
    /// code ran meanwhile, so that it must be done again. A parameter that still needs state is checked, but not moved.
    fn prepare(
        &mut self,
        found: &[Found<'_>],
        form: Form,
        parameters: &[Parameter],
        recipes: &[Recipe],
    ) -> PyResult<bool> {
        self.batch.clear();
        self.written.clear();
        self.read.clear();
        self.writers.clear();
        self.readers.clear();
        // Parameters of one group mostly share their step count and dtype, and so a kernel.
        let mut last: Option<(usize, u64, Dtype, usize)> = None;
        for (i, one) in found.iter().enumerate() {
            let parameter = &parameters[one.parameter];
            let recipe = &recipes[parameter.group];
            let operands = one.read(parameter, form)?;
            for (operand, span) in operands.spans() {
                if operand == GRAD {
                    self.read.push(span);
                    self.readers.push((i, operand));
                } else {
                    self.written.push(span);
                    self.writers.push((i, operand));
                }
            }
            let (Some(update), Some(stages)) = (&recipe.update, recipe.stages) else { continue };
            if !parameter.has(update.state()) {
                continue;
            }
            let (t, dtype) = (parameter.t + 1, operands.dtype());
            let kernel = match last {
                Some((group, at, of, kernel)) if (group, at, of) == (parameter.group, t, dtype) => kernel,
                _ => self.batch.add_kernel(update.at(t, dtype, stages)),
            };
            last = Some((parameter.group, t, dtype, kernel));
            // SAFETY: `found` and `parameters` keep the arrays alive, and the step is not taken unless `confirm` below finds
            // that nothing overlaps. Other threads must not resize the arrays during a step: the documentation says so.
            self.batch.push(unsafe { operands.tensor() }, kernel);
        }
        let mut python_ran = false;
        let Self { overlaps, written, read, writers, readers, .. } = self;
        overlaps.check(written, read, |meeting| {
            python_ran = true;
            let (a, b) = match meeting {
                Meeting::Written(a, b) => (writers[a], writers[b]),
                Meeting::Read(a, b) => (writers[a], readers[b]),
            };
            let array = |(i, operand): (usize, usize)| found[i].operand(&parameters[found[i].parameter], operand);
            let place = |(i, operand): (usize, usize)| Located(&parameters[found[i].parameter], form).place(operand);
            check_apart(&array(a), &array(b), || (place(a), place(b)))
        })?;
        Ok(python_ran)
    }
}

impl<'py> Found<'py> {
    #[inline]
    fn read<'a>(&'a self, parameter: &'a Parameter, form: Form) -> PyResult<Operands<'a>> {
        let py = self.weight.py();
        let states = parameter.state.iter().map(move |state| state.bind(py));
        let arrays = iter::once(&self.weight).chain(iter::once(&self.grad)).chain(states);
        Operands::read(&arrays, &Located(parameter, form))
    }

    fn operand(&self, parameter: &Parameter, operand: usize) -> Bound<'py, PyAny> {
        match operand {
            WEIGHT => self.weight.clone(),
            GRAD => self.grad.clone(),
            state => parameter.state[state - STATE].bind(self.weight.py()).clone(),
        }
    }
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
