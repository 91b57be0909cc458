//! The prepared list of an optimizer: its groups and parameters, and the way of a step through them.

use std::collections::HashSet;
use std::mem;

use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyMapping};

use super::buffers::Header;
use super::error;
use super::gradients::{self, Form, Found, Groups};
use super::operands::Places;
use super::parameter::{Located, Parameter, Recipe, State};
use super::step::{Step, check_weights};
use super::structure::{Node, Place};
use crate::engine::{Decay, Describe, Make, Stages, WEIGHT};
use crate::rules;

/// A step of fewer elements is over before the interpreter could be given up and had back.
const DETACH: usize = 32 << 10;

/// Moves the parameters of one optimizer.
#[pyclass(module = "lrcore._lrcore")]
pub(crate) struct Stepper {
    groups: Groups,
    recipes: Vec<Recipe>,
    parameters: Vec<Parameter>,
    /// How many steps have been taken.
    taken: u64,
    /// `make_state(weight, initial)` gives a new state array.
    make_state: Py<PyAny>,
    step: Step,
}

#[pymethods]
impl Stepper {
    #[new]
    fn new(grouped: bool, make_state: Py<PyAny>) -> Self {
        let groups = Groups::new(grouped);
        Self { groups, recipes: Vec::new(), parameters: Vec::new(), taken: 0, make_state, step: Step::default() }
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
        let node = Node::build(params, &root, &mut |place, array| {
            arrays.push(array.clone());
            places.push(place);
            first + places.len() - 1
        })?;
        if places.is_empty() {
            return Err(error::empty(&root));
        }
        let prefix = (form != Form::Single).then_some(name);
        stepper.name(&mut places, prefix, params.cast::<PyMapping>().is_ok(), &root)?;
        let parameter = |place| Parameter { place, group, state: State::NONE };
        let parameters: Vec<_> = places.into_iter().map(parameter).collect();
        let known = stepper.present_weights(params.py())?;
        check_weights(stepper.parameters.iter().zip(&known).chain(parameters.iter().zip(&arrays)), form)?;
        let names = parameters.iter().map(|parameter| parameter.place.name.clone()).collect();
        stepper.groups.push(params, node)?;
        stepper.parameters.extend(parameters);
        stepper.recipes.push(Recipe::default());
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
        let mut stepper = Self::change(slf)?;
        let recipe = stepper.recipes.get_mut(group).ok_or_else(|| error::bad_index(group))?;
        *recipe = Recipe(Some((update, Stages { maximize, decay, weight_decay, lr })));
        Ok(())
    }

    /// Sets a parameter's state arrays, by name, and the number of steps that they have seen.
    fn set_state(slf: &Bound<'_, Self>, parameter: usize, t: u64, arrays: &Bound<'_, PyDict>) -> PyResult<()> {
        let mut stepper = Self::change(slf)?;
        let parameter = stepper.parameters.get_mut(parameter).ok_or_else(|| error::bad_index(parameter))?;
        parameter.state = State::from_mapping(t, arrays, &parameter.place.name)?;
        Ok(())
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

    /// The group of each parameter.
    #[getter]
    fn group_of_each(slf: &Bound<'_, Self>) -> PyResult<Vec<usize>> {
        Ok(Self::look(slf)?.parameters.iter().map(|parameter| parameter.group).collect())
    }

    /// Takes one step, and returns how many have been taken. After an error nothing has changed.
    fn step(slf: &Bound<'_, Self>, grads: &Bound<'_, PyAny>) -> PyResult<u64> {
        let py = slf.py();
        let mut stepper = Self::change(slf)?;
        let Self { groups, recipes, parameters, taken, make_state, step } = &mut *stepper;
        let (mut found, form) = groups.find(grads, parameters.len())?;
        if !step.renew(&found, form, parameters, recipes)? {
            for Found { weight, grad, .. } in &mut found {
                if Header::of(grad).is_none()
                    && let Some(array) = gradients::scalar_as_array(grad, weight)?
                {
                    *grad = array;
                }
            }
            step.prepare(&found, form, parameters, recipes)?;
        }
        // State is made when all else is found good, and belongs to the parameter when the step has been taken.
        if step.batch.len() < found.len() {
            for found in &mut found {
                let parameter = &parameters[found.parameter];
                let Some((update, _)) = &recipes[parameter.group].0 else { return Err(error::unknown_rule("")) };
                if !parameter.state.is_of(update.state()) {
                    let make = |initial: f64| make_state.call1(py, (&found.weight, initial));
                    found.made = Some(Box::new(parameter.state.turned_into(py, &**update, make)?));
                }
            }
            step.prepare(&found, form, parameters, recipes)?;
        }
        let batch = &mut step.batch;
        if batch.total() < DETACH {
            batch.run();
        } else {
            py.detach(|| batch.run());
        }
        for found in found {
            let parameter = &mut parameters[found.parameter];
            if let Some(made) = found.made {
                parameter.state = *made;
            }
            parameter.state.t += 1;
        }
        *taken += 1;
        Ok(*taken)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.make_state)?;
        self.groups.traverse(&visit)?;
        self.parameters.iter().flat_map(|parameter| &parameter.state.arrays).try_for_each(|array| visit.call(array))
    }

    fn __clear__(&mut self) {
        self.groups.clear();
        self.parameters.clear();
        self.recipes.clear();
    }
}

impl Stepper {
    fn look<'py>(slf: &Bound<'py, Self>) -> PyResult<PyRef<'py, Self>> {
        slf.try_borrow().map_err(|_| error::busy())
    }

    fn change<'py>(slf: &Bound<'py, Self>) -> PyResult<PyRefMut<'py, Self>> {
        slf.try_borrow_mut().map_err(|_| error::busy())
    }

    /// The arrays that are the parameters now.
    fn present_weights<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyAny>>> {
        let weights = self.groups.weights(py, self.parameters.len())?;
        for (parameter, weight) in self.parameters.iter().zip(&weights) {
            if Header::of(weight).is_none() {
                let located = Located { parameter, state: &parameter.state, form: self.groups.form() };
                return Err(error::not_an_array(&located.place(WEIGHT), weight));
            }
        }
        Ok(weights)
    }

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
}
