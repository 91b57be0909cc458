//! The steps of one optimizer.
//!
//! ```text
//! step(grads):
//!     find_grads      the slots of all parameters with a gradient
//!     make_plan       load external state; reuse the plan of the last step, or build one
//!     clip_or_skip    the norm of the gradients, and the factor that they are multiplied by
//!     run             update the weights
//!     commit          count the step, and store what it created
//! ```
//!
//! Up to `run` nothing is written, so after an error everything is as it was.

use std::collections::HashSet;
use std::mem;

use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyMapping, PyTuple, PyType};

use super::accumulator::{Accumulator, SavedGradients};
use super::array_view::{ArrayKind, ArrayView, is_referenced_elsewhere};
use super::calls::InUse;
use super::dlpack::DlpackApi;
use super::error;
use super::external_state::ExternalContext;
use super::param_groups::{GradSlot, ParamGroups};
use super::param_path::{GradLayout, ParamPath, unique_names};
use super::param_tree::{ParamTree, TreeBuilder};
use super::parameter::{GroupConfig, OperandNames, Parameter};
use super::shared_memory::{as_numpy, check_weights, check_zeroed_grads};
use super::state::{Column, NO_STATE, State};
use super::step_plan::{StepContext, StepPlan};
use crate::engine::{
    Average, Decay, DefaultMode, Factor, Norm, Signature, SpanSet, Stages, Stats, WEIGHT, create, signature,
};

/// Takes the steps of one optimizer.
#[pyclass(module = "lrcore._lrcore")]
pub(crate) struct Stepper {
    groups: ParamGroups,
    configs: Vec<GroupConfig>,
    parameters: Vec<Parameter>,
    /// The names of all parameters.
    names: HashSet<String>,
    /// The memory of all parameters when they were last checked, which groups that are added are compared with.
    memory: SpanSet,
    /// The number of parameters when all of them were last checked.
    checked: usize,
    step_count: u64,
    /// `make_state(weight, initial)` returns a new state array.
    make_state: Py<PyAny>,
    kind: ArrayKind,
    /// Functions of PyTorch's optimizers, whose parameters are tensors.
    hooks: Option<TensorHooks>,
    options: Options,
    plan: StepPlan,
    accumulator: Accumulator,
    report: StepReport,
}

struct TensorHooks {
    /// `make_count(value)` returns a tensor of one number.
    make_count: Py<PyAny>,
    /// `on_written(tensors)` is called with the tensors that a step has written.
    on_written: Py<PyAny>,
}

/// The options of all groups.
#[derive(Clone, Copy, Default)]
struct Options {
    /// The norm to compute of all gradients.
    norm: Option<Norm>,
    /// The largest norm; larger ones are clipped.
    clip_norm: Option<f64>,
    /// Whether a step with gradients that are not finite is skipped.
    skip_nonfinite: bool,
    average: Option<Average>,
    stats: bool,
    /// Whether the squared norms of accumulated gradients are computed.
    noise_scale: bool,
}

/// What the last step did.
#[derive(Default)]
struct StepReport {
    grad_norm: Option<f64>,
    skip_reason: Option<SkipReason>,
    stats: Vec<(usize, usize, Stats)>,
    /// Of accumulated gradients: their number, the mean of their squared norms, and the squared norm of their mean.
    squared_norms: Option<(u64, f64, f64)>,
    /// The parameters whose state is new.
    new_states: Vec<usize>,
}

/// The parameter with a gradient that is not finite, with the index and the value of its first such element. No parameter: the gradient
/// is another process's. No index: it is `grad_scale` that makes the gradient infinite.
type SkipReason = (Option<usize>, Option<(Vec<usize>, String)>);

/// A step that is being taken.
struct StepInProgress<'py> {
    slots: Vec<GradSlot<'py>>,
    layout: GradLayout,
    /// Whether the gradients are the sums of the accumulator.
    uses_sums: bool,
    /// Whether nothing can have moved the arrays of external counts since they were read: the interpreter is held, and no Python code runs.
    has_counts_in_place: bool,
}

#[pymethods]
impl Stepper {
    /// For tensors, `tensors` has their type and two functions: `make_count(value)` and `on_written(tensors)`.
    #[new]
    #[pyo3(signature = (grouped, make_state, *, tensors=None))]
    fn new(
        grouped: bool,
        make_state: Py<PyAny>,
        tensors: Option<(Bound<'_, PyType>, Py<PyAny>, Py<PyAny>)>,
    ) -> PyResult<Self> {
        let (kind, hooks) = match tensors {
            None => (ArrayKind::NumPy, None),
            Some((tensor_type, make_count, on_written)) => {
                let kind = ArrayKind::Tensors(DlpackApi::of(&tensor_type)?);
                (kind, Some(TensorHooks { make_count, on_written }))
            }
        };
        Ok(Self {
            groups: ParamGroups::new(grouped, hooks.is_some()),
            configs: Vec::new(),
            parameters: Vec::new(),
            names: HashSet::new(),
            memory: SpanSet::default(),
            checked: 0,
            step_count: 0,
            make_state,
            kind,
            hooks,
            options: Options::default(),
            plan: StepPlan::default(),
            accumulator: Accumulator::default(),
            report: StepReport::default(),
        })
    }

    /// Adds a group of parameters, and returns their names. The group's name distinguishes them from those of other groups. From the second group
    /// on, gradients are given by group.
    fn add_group(slf: &Bound<'_, Self>, params: &Bound<'_, PyAny>, name: &str) -> PyResult<Vec<String>> {
        Self::borrow_mut(slf)?.add_params(params, name)
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
        let rule = create(rule, &values).ok_or_else(|| error::wrong_count(rule, hyperparameters, values.len()))?;
        let decay = Decay::from_name(decay).ok_or_else(|| error::unknown_decay(decay))?;
        let stages = Stages { maximize, decay, decay_rate, clip_value, bounds, zero_grads, ..Stages::NONE };
        let mut stepper = Self::borrow_mut(slf)?;
        let config = stepper.configs.get_mut(group).ok_or_else(|| error::bad_index(group))?;
        *config = GroupConfig::new(slf.py(), rule, stages);
        Ok(())
    }

    /// Sets the options of all groups. The norm is `"1"`, `"2"` or `"inf"`; the average is `("ema", decay, warmup)` or
    /// `("swa", start, every)`.
    #[pyo3(signature = (*, norm, clip_norm, skip_nonfinite, average, stats, noise_scale))]
    fn set_options(
        slf: &Bound<'_, Self>,
        norm: Option<&str>,
        clip_norm: Option<f64>,
        skip_nonfinite: bool,
        average: Option<&Bound<'_, PyAny>>,
        stats: bool,
        noise_scale: bool,
    ) -> PyResult<()> {
        let norm = norm.map(|name| Norm::from_name(name).ok_or_else(|| error::unknown_norm(name))).transpose()?;
        let average = average.map(average_from).transpose()?;
        Self::borrow_mut(slf)?.options = Options { norm, clip_norm, skip_nonfinite, average, stats, noise_scale };
        Ok(())
    }

    /// Sets whether weight decay acts on a parameter.
    fn set_decays(slf: &Bound<'_, Self>, parameter: usize, decays: bool) -> PyResult<()> {
        let mut stepper = Self::borrow_mut(slf)?;
        stepper.parameters.get_mut(parameter).ok_or_else(|| error::bad_index(parameter))?.decays = decays;
        Ok(())
    }

    /// Sets the states of all parameters: step counts, numbers of weights in averages, and columns of arrays by name, with the average. A
    /// column has None for a parameter without such an array. After an error nothing has changed.
    #[expect(clippy::needless_pass_by_value, reason = "PyO3 gives no slice of numbers")]
    fn set_states(
        slf: &Bound<'_, Self>,
        step_counts: Vec<u64>,
        average_counts: Vec<u64>,
        columns: Vec<Column>,
    ) -> PyResult<()> {
        let mut stepper = Self::borrow_mut(slf)?;
        let names = stepper.parameters.iter().map(|parameter| parameter.path.name.as_str());
        let mut states = State::from_columns(&step_counts, &average_counts, columns, names)?;
        for (parameter, state) in stepper.parameters.iter_mut().zip(&mut states) {
            mem::swap(&mut parameter.state, state);
        }
        // The last reference to an array may run Python code, which may use the optimizer.
        drop(stepper);
        Ok(())
    }

    /// Keeps the state of each parameter in a mapping, from names to arrays and counts, which each step loads. Without `counts_steps` the
    /// mappings have no step counts, and only a parameter's first step is distinguished from later ones.
    #[expect(clippy::needless_pass_by_value, reason = "PyO3 gives no slice of objects")]
    fn use_external_states(
        slf: &Bound<'_, Self>,
        mappings: Vec<Bound<'_, PyDict>>,
        counts_steps: bool,
    ) -> PyResult<()> {
        let mut stepper = Self::borrow_mut(slf)?;
        for (parameter, mapping) in stepper.parameters.iter_mut().zip(&mappings) {
            parameter.state = State::in_mapping(mapping, counts_steps);
        }
        Ok(())
    }

    /// The parameters whose state the last step created.
    #[getter]
    fn new_states(slf: &Bound<'_, Self>) -> PyResult<Vec<usize>> {
        Ok(Self::borrow(slf)?.report.new_states.clone())
    }

    /// The state arrays of each parameter, by name.
    #[getter]
    fn states<'py>(slf: &Bound<'py, Self>) -> PyResult<Vec<Bound<'py, PyDict>>> {
        Self::borrow(slf)?.parameters.iter().map(|parameter| parameter.state.to_arrays(slf.py())).collect()
    }

    /// The present arrays of all parameters.
    fn weights<'py>(slf: &Bound<'py, Self>) -> PyResult<Vec<Bound<'py, PyAny>>> {
        Self::borrow(slf)?.present_weights(slf.py())
    }

    #[getter]
    fn get_step_count(slf: &Bound<'_, Self>) -> PyResult<u64> {
        Ok(Self::borrow(slf)?.step_count)
    }

    #[setter]
    fn set_step_count(slf: &Bound<'_, Self>, step_count: u64) -> PyResult<()> {
        Self::borrow_mut(slf)?.step_count = step_count;
        Ok(())
    }

    /// The step count of each parameter.
    #[getter]
    fn step_counts(slf: &Bound<'_, Self>) -> PyResult<Vec<u64>> {
        Ok(Self::borrow(slf)?.parameters.iter().map(|parameter| parameter.state.step_count).collect())
    }

    /// The number of weights in the average of each parameter.
    #[getter]
    fn average_counts(slf: &Bound<'_, Self>) -> PyResult<Vec<u64>> {
        Ok(Self::borrow(slf)?.parameters.iter().map(|parameter| parameter.state.average_count).collect())
    }

    /// The group of each parameter.
    #[getter]
    fn group_indices(slf: &Bound<'_, Self>) -> PyResult<Vec<usize>> {
        Ok(Self::borrow(slf)?.parameters.iter().map(|parameter| parameter.group).collect())
    }

    /// Takes a step, and returns the step count. Gradients are divided by `grad_scale`. Without gradients, the mean of the accumulated ones
    /// is used. After an error nothing has changed.
    ///
    /// `combine(norm, skip)` gets the norm of the gradients, and whether the step is to be skipped, and returns both for all processes
    /// together.
    #[pyo3(signature = (grads, grad_scale=1.0, combine=None))]
    fn step(
        slf: &Bound<'_, Self>,
        grads: &Bound<'_, PyAny>,
        grad_scale: f64,
        combine: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<u64> {
        let _mode = DefaultMode::enter();
        let mut stepper = Self::borrow_mut(slf)?;
        let mut step = stepper.find_grads(grads)?;
        stepper.make_plan(slf.py(), &mut step)?;
        match stepper.clip_or_skip(slf.py(), &mut step, grad_scale, combine)? {
            None => Ok(stepper.step_count),
            Some(grad_factor) => {
                stepper.run(slf.py(), &step, grad_factor)?;
                stepper.commit(slf.py(), &step)
            }
        }
    }

    /// Accumulates gradients, multiplied by a weight, and returns the number of micro-batches that wait for a step.
    #[pyo3(signature = (grads, weight=1.0))]
    fn accumulate(slf: &Bound<'_, Self>, grads: &Bound<'_, PyAny>, weight: f64) -> PyResult<u64> {
        let _mode = DefaultMode::enter();
        Self::borrow_mut(slf)?.accumulate_grads(grads, weight)
    }

    /// The number of accumulated micro-batches.
    #[getter]
    fn pending_batches(slf: &Bound<'_, Self>) -> PyResult<u64> {
        Ok(Self::borrow(slf)?.accumulator.pending_batches)
    }

    /// Of the last step with accumulated gradients, with the option `noise_scale`: the number of micro-batches, the mean of their squared
    /// norms, and the squared norm of their mean. None for fewer than two.
    #[getter]
    fn squared_norms(slf: &Bound<'_, Self>) -> PyResult<Option<(u64, f64, f64)>> {
        Ok(Self::borrow(slf)?.report.squared_norms)
    }

    /// The accumulated gradients: the number of micro-batches, the sum of their weights, parameters with their sums, and for a noise scale
    /// the stride and phase of the sample and its sum of squares. None if there are none.
    #[getter]
    fn get_accumulated(slf: &Bound<'_, Self>) -> PyResult<Option<SavedGradients>> {
        Ok(Self::borrow(slf)?.accumulator.save(slf.py()))
    }

    #[setter]
    fn set_accumulated(slf: &Bound<'_, Self>, saved: Option<SavedGradients>) -> PyResult<()> {
        let mut stepper = Self::borrow_mut(slf)?;
        let Self { parameters, configs, accumulator, .. } = &mut *stepper;
        *accumulator =
            saved.map_or_else(Accumulator::default, |saved| Accumulator::restore(saved, parameters, configs));
        Ok(())
    }

    /// The norm of the last step's gradients, if it was computed.
    #[getter]
    fn grad_norm(slf: &Bound<'_, Self>) -> PyResult<Option<f64>> {
        Ok(Self::borrow(slf)?.report.grad_norm)
    }

    /// Why the last step was skipped: the parameter with a gradient that is not finite, with index and value of the first such element.
    /// Without a parameter it is a gradient of another process, without an index `grad_scale` makes it infinite.
    #[getter]
    fn skip_reason(slf: &Bound<'_, Self>) -> PyResult<Option<SkipReason>> {
        Ok(Self::borrow(slf)?.report.skip_reason.clone())
    }

    /// Of each parameter that the last step updated: its index, the number of its elements, the norms of weight, gradient and update, the
    /// largest update, and the numbers of gradient elements that are 0 and that are not finite.
    #[getter]
    fn stats(slf: &Bound<'_, Self>) -> PyResult<Vec<(usize, usize, [f64; 6])>> {
        let of = |&(parameter, len, stats): &(usize, usize, Stats)| {
            let Stats { weight_norm, grad_norm, update_norm, update_max, zeros, nonfinite } = stats;
            (parameter, len, [weight_norm, grad_norm, update_norm, update_max, zeros, nonfinite])
        };
        Ok(Self::borrow(slf)?.report.stats.iter().map(of).collect())
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.make_state)?;
        if let Some(TensorHooks { make_count, on_written }) = &self.hooks {
            visit.call(make_count)?;
            visit.call(on_written)?;
        }
        self.groups.traverse(&visit)?;
        self.accumulator.traverse(&visit)?;
        self.parameters.iter().try_for_each(|parameter| parameter.state.traverse(&visit))
    }

    fn __clear__(&mut self) {
        self.groups.clear();
        self.parameters.clear();
        self.names.clear();
        self.configs.clear();
        self.accumulator = Accumulator::default();
        self.report = StepReport::default();
    }
}

/// The five parts of a step.
impl Stepper {
    fn find_grads<'py>(&mut self, grads: &Bound<'py, PyAny>) -> PyResult<StepInProgress<'py>> {
        let (py, count) = (grads.py(), self.parameters.len());
        let pending = self.accumulator.pending_batches;
        if !grads.is_none() && pending > 0 {
            return Err(error::batches_wait(pending));
        }
        let (slots, layout) = if pending > 0 {
            (self.accumulator.grads(&self.groups.weights(py, count)?), self.groups.layout())
        } else if grads.is_none() && self.hooks.is_some() {
            (self.groups.find_grad_attributes(py, count)?, self.groups.layout())
        } else {
            self.groups.find_grads(grads, count)?
        };
        if self.hooks.is_none() {
            self.check_referenced(&slots, layout)?;
        }
        self.plan.begin_step();
        Ok(StepInProgress { slots, layout, uses_sums: pending > 0, has_counts_in_place: false })
    }

    fn make_plan(&mut self, py: Python<'_>, step: &mut StepInProgress<'_>) -> PyResult<()> {
        let is_loaded_in_place = self.load_external_states(py, &mut step.slots)?;
        let is_reused = self.reuse_or_build_plan(step)?;
        step.has_counts_in_place = is_loaded_in_place && is_reused && self.plan.is_short();
        self.report = StepReport::default();
        Ok(())
    }

    /// Returns the factor that gradients are multiplied by, or `None` if the step was skipped.
    fn clip_or_skip(
        &mut self,
        py: Python<'_>,
        step: &mut StepInProgress<'_>,
        grad_scale: f64,
        combine: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Option<Factor>> {
        let factor = Factor::ONE.over(grad_scale.into());
        let factor = if step.uses_sums { factor.over(self.accumulator.total_weight.into()) } else { factor };
        let Options { norm: Some(norm), clip_norm, skip_nonfinite, .. } = self.options else {
            return Ok(Some(factor));
        };
        // SAFETY: no Python code ran since the plan was reused or built.
        let mut value = unsafe { self.plan.grad_norm(py, norm, factor) };
        // Where the norm is finite in every dtype, each element is.
        let may_skip = skip_nonfinite && !value.is_at_most(self.plan.batch.largest_of_dtypes());
        let nonfinite = if may_skip { self.plan.batch.first_nonfinite(factor) } else { None };
        let mut skips = nonfinite.is_some();
        if let Some(combine) = combine {
            let combined: (f64, bool) = combine.call1((value.value(), skips))?.extract()?;
            (value, skips) = (combined.0.into(), combined.1);
            // Python code ran, so everything is read again before anything is written.
            self.reuse_or_build_plan(step)?;
            step.has_counts_in_place = false;
        }
        self.report.grad_norm = Some(value.value());
        if skips {
            self.skip(py, step, nonfinite)?;
            return Ok(None);
        }
        Ok(Some(clip_norm.map_or(factor, |most| factor.times(value.clipped_to(most)))))
    }

    fn run(&mut self, py: Python<'_>, step: &StepInProgress<'_>, grad_factor: Factor) -> PyResult<()> {
        let sample = if step.uses_sums { self.accumulator.sample_of_sums() } else { None };
        let (plan, context) = self.plan_and_context(step);
        plan.make_kernels(context, grad_factor)?;
        if self.options.stats {
            // SAFETY: no Python code ran since the plan was reused or built: computing a norm and making kernels run no Python code.
            let stats = unsafe { self.plan.run_with_stats(py, sample) };
            let stats = step.slots.iter().zip(stats).map(|(slot, (len, stats))| (slot.parameter, len, stats));
            self.report.stats = stats.collect();
        } else {
            // SAFETY: as above.
            unsafe { self.plan.run(py, sample) };
        }
        self.report.squared_norms = sample.and_then(|sample| {
            let of_sum = self.plan.batch.sampled_squares(sample);
            self.accumulator.squared_norms(sample, of_sum)
        });
        Ok(())
    }

    /// Returns the step count. The slots are dropped by the caller, at the end, since freeing an array may run Python code.
    fn commit(&mut self, py: Python<'_>, step: &StepInProgress<'_>) -> PyResult<u64> {
        let number = self.step_count + 1;
        let average = self.options.average;
        let written = self.hooks.is_some().then(|| {
            let weights = step.slots.iter().map(|slot| slot.weight.clone());
            weights.chain(self.zeroed_grads(step)).collect::<Vec<_>>()
        });
        let kind = (!step.has_counts_in_place).then_some(self.kind);
        let mut new_states = self.plan.take_new_states();
        for (i, slot) in step.slots.iter().enumerate() {
            let state = &mut self.parameters[slot.parameter].state;
            let new = new_states.get_mut(i).and_then(Option::take);
            let is_new = new.is_some() || state.external.as_ref().is_some_and(|external| external.has_new_counts());
            if is_new {
                self.report.new_states.push(slot.parameter);
            }
            if let Some(new) = new {
                state.replace(*new);
            }
            if average.is_some_and(|average| average.includes(number)) {
                state.average_count += 1;
            }
            state.step_count += 1;
            // SAFETY: with counts in place, no Python code ran since they were read: no state was created, and none is new.
            unsafe { state.store(py, is_new, kind)? };
        }
        if step.uses_sums {
            self.accumulator.reset();
        }
        self.step_count = number;
        if let Some((hooks, written)) = self.hooks.as_ref().zip(written) {
            hooks.on_written.call1(py, (PyList::new(py, written)?,))?;
        }
        Ok(number)
    }
}

impl Stepper {
    fn borrow<'py>(slf: &Bound<'py, Self>) -> PyResult<InUse<PyRef<'py, Self>>> {
        InUse::begin(slf.py(), || slf.try_borrow().map_err(|_| error::busy()))
    }

    fn borrow_mut<'py>(slf: &Bound<'py, Self>) -> PyResult<InUse<PyRefMut<'py, Self>>> {
        InUse::begin(slf.py(), || slf.try_borrow_mut().map_err(|_| error::busy()))
    }

    fn add_params(&mut self, params: &Bound<'_, PyAny>, name: &str) -> PyResult<Vec<String>> {
        let layout = self.groups.layout_with_another();
        let group = self.groups.len();
        let root = &layout.params(group);
        let first = self.parameters.len();
        let mut builder = TreeBuilder { kind: self.kind, root, first, arrays: Vec::new(), paths: Vec::new() };
        let tree = builder.build(params)?;
        let TreeBuilder { arrays, mut paths, .. } = builder;
        if arrays.is_empty() && self.hooks.is_none() {
            return Err(error::empty(root));
        }
        arrays.iter().try_for_each(|array| self.kind.learn(array))?;
        if self.hooks.is_none() {
            check_stable(params, &tree, root, (first, &arrays, &paths))?;
        }
        let prefix = (layout != GradLayout::Single).then_some(name);
        let is_named_by_keys = params.cast::<PyMapping>().is_ok();
        unique_names(&mut paths, &self.names, prefix, is_named_by_keys, root)?;
        let parameter = |path| Parameter { path, group, state: State::NONE, decays: true, may_be_lazy: true };
        let parameters: Vec<_> = paths.into_iter().map(parameter).collect();
        // Of tensors, only those with a gradient must be fit for a step.
        if self.hooks.is_none() {
            self.check_added(params.py(), &parameters, &arrays, layout)?;
        }
        let names: Vec<_> = parameters.iter().map(|parameter| parameter.path.name.clone()).collect();
        self.groups.push(params, tree)?;
        self.names.extend(names.iter().cloned());
        self.parameters.extend(parameters);
        self.configs.push(GroupConfig::NONE);
        Ok(names)
    }

    fn accumulate_grads(&mut self, grads: &Bound<'_, PyAny>, weight: f64) -> PyResult<u64> {
        let py = grads.py();
        let noise_scale = self.options.noise_scale;
        if noise_scale && !self.accumulator.has_equal_weights_with(weight) {
            return Err(error::unequal_weights(self.accumulator.mean_weight(), weight));
        }
        let (slots, layout) = self.groups.find_grads(grads, self.parameters.len())?;
        self.check_referenced(&slots, layout)?;
        let Self { groups, parameters, configs, accumulator, make_state, .. } = self;
        let kind = ArrayKind::NumPy;
        let (average, number, zero_grads) = (None, 1, false);
        let context = StepContext { layout, kind, parameters, configs, average, number, make_state, zero_grads };
        if configs.iter().any(|config| config.zeroes(zero_grads)) {
            let weights = groups.weights(py, parameters.len())?;
            let grads = slots.iter().map(|slot| (&parameters[slot.parameter], &slot.grad));
            let zeroed = grads.filter(|(parameter, _)| configs[parameter.group].zeroes(zero_grads));
            check_zeroed_grads(zeroed, parameters.iter().zip(&weights), layout)?;
        }
        // Each step has another sample, and a resumed run has the same ones.
        let phase = noise_scale.then(|| usize::try_from(self.step_count).unwrap_or_default());
        accumulator.add(py, slots, weight, context, phase)
    }

    fn plan_and_context(&mut self, step: &StepInProgress<'_>) -> (&mut StepPlan, StepContext<'_>) {
        let context = StepContext {
            layout: step.layout,
            kind: self.kind,
            parameters: &self.parameters,
            configs: &self.configs,
            average: self.options.average,
            number: self.step_count + 1,
            make_state: &self.make_state,
            zero_grads: step.uses_sums,
        };
        (&mut self.plan, context)
    }

    /// Returns whether the last plan was reused, without running Python code.
    fn reuse_or_build_plan(&mut self, step: &mut StepInProgress<'_>) -> PyResult<bool> {
        let (plan, context) = self.plan_and_context(step);
        plan.reuse_or_build(&mut step.slots, context)
    }

    /// Skips a step because of gradients that are not finite, in this slot if it is in this process.
    fn skip(&mut self, py: Python<'_>, step: &mut StepInProgress<'_>, nonfinite: Option<usize>) -> PyResult<()> {
        let reason = nonfinite.map(|i| Ok::<_, PyErr>((Some(step.slots[i].parameter), locate(&step.slots[i].grad)?)));
        self.report.skip_reason = Some(reason.transpose()?.unwrap_or_default());
        // Python code ran, so everything is read again before gradients are set to zero.
        self.reuse_or_build_plan(step)?;
        self.plan.batch.zero_grads();
        if let Some(hooks) = &self.hooks {
            let zeroed: Vec<_> = self.zeroed_grads(step).collect();
            hooks.on_written.call1(py, (PyList::new(py, zeroed)?,))?;
        }
        if step.uses_sums {
            self.accumulator.reset();
        }
        Ok(())
    }

    /// The gradients that a step sets to zero.
    fn zeroed_grads<'py>(&self, step: &StepInProgress<'py>) -> impl Iterator<Item = Bound<'py, PyAny>> {
        let is_zeroed =
            |slot: &&GradSlot<'_>| self.configs[self.parameters[slot.parameter].group].zeroes(step.uses_sums);
        step.slots.iter().filter(is_zeroed).map(|slot| slot.grad.clone())
    }

    /// Resolves lazy gradients of tensors, and loads the external state of their parameters. Returns whether it is the same arrays, and no
    /// Python code ran after their counts were read.
    ///
    /// Counts are read last: nothing runs until the caller does something.
    fn load_external_states(&mut self, py: Python<'_>, slots: &mut [GradSlot<'_>]) -> PyResult<bool> {
        let Some(TensorHooks { make_count, .. }) = &self.hooks else { return Ok(true) };
        let context = ExternalContext { kind: self.kind, make_count, has_average: self.options.average.is_some() };
        let mut is_same = true;
        for slot in &mut *slots {
            let may_be_lazy = &mut self.parameters[slot.parameter].may_be_lazy;
            is_same &= !*may_be_lazy;
            *may_be_lazy = *may_be_lazy && slot.resolve(self.kind)?;
        }
        // A second time if a count can't be read that could be read in the last step.
        for trust_format in [true, false] {
            for slot in &*slots {
                let Parameter { group, state, .. } = &mut self.parameters[slot.parameter];
                let GroupConfig { rule: Some(_), state_names, state_keys, .. } = &self.configs[*group] else {
                    continue;
                };
                is_same &= state.load(py, state_names, state_keys, trust_format, context)?;
            }
            if slots.iter().all(|slot| self.parameters[slot.parameter].state.read_counts(py, context)) {
                return Ok(is_same);
            }
        }
        Err(error::counts_change())
    }

    /// Checks that each weight is referenced by something else, so that the step has an effect that can be seen.
    fn check_referenced(&self, slots: &[GradSlot<'_>], layout: GradLayout) -> PyResult<()> {
        match slots.iter().find(|slot| !is_referenced_elsewhere(&slot.weight)) {
            None => Ok(()),
            Some(slot) => {
                let names = OperandNames { parameter: &self.parameters[slot.parameter], state: &NO_STATE, layout };
                Err(error::not_kept(&names.of(WEIGHT)))
            }
        }
    }

    /// Checks the arrays of parameters that are to be added, and remembers their memory.
    ///
    /// Those of other groups are viewed again if memory overlaps, and each time that the number of parameters has doubled: adding groups
    /// one by one takes time linear in their number. A step checks all of them.
    fn check_added(
        &mut self,
        py: Python<'_>,
        parameters: &[Parameter],
        arrays: &[Bound<'_, PyAny>],
        layout: GradLayout,
    ) -> PyResult<()> {
        let added = parameters.iter().zip(arrays);
        let mut spans = check_weights(added.clone(), layout)?;
        let overlaps = spans.iter().any(|&span| self.memory.overlaps(span));
        let has_doubled = self.parameters.len() >= 2 * self.checked;
        if !self.parameters.is_empty() && (overlaps || has_doubled) {
            self.checked = self.parameters.len();
            let known = self.present_weights(py)?;
            spans = check_weights(self.parameters.iter().zip(&known).chain(added), layout)?;
            self.memory = SpanSet::default();
        }
        for span in spans {
            self.memory.insert(span);
        }
        Ok(())
    }

    fn present_weights<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyAny>>> {
        let weights = self.groups.weights(py, self.parameters.len())?;
        for (parameter, weight) in self.parameters.iter().zip(&weights) {
            if ArrayView::of(weight, self.kind).is_none() {
                let names = OperandNames { parameter, state: &parameter.state, layout: self.groups.layout() };
                return Err(error::not_an_array(&names.of(WEIGHT), weight));
            }
        }
        Ok(weights)
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

/// Finds the first element of an array that is not finite, with its value as text, since it may be complex.
fn locate(array: &Bound<'_, PyAny>) -> PyResult<Option<(Vec<usize>, String)>> {
    let array = &as_numpy(array)?;
    let numpy = array.py().import("numpy")?;
    let nonfinite = numpy.call_method1("logical_not", (numpy.call_method1("isfinite", (array,))?,))?;
    let indices = numpy.call_method1("argwhere", (nonfinite,))?;
    if indices.len()? == 0 {
        return Ok(None);
    }
    let index: Vec<usize> = indices.get_item(0)?.extract()?;
    let value = array.get_item(PyTuple::new(array.py(), &index)?)?.str()?.to_string();
    Ok(Some((index, value)))
}

/// Checks that a structure gives the same memory each time that it is read, if not the same arrays. The first arrays are alive, so new
/// memory can't be at their addresses.
fn check_stable(
    params: &Bound<'_, PyAny>,
    tree: &ParamTree,
    root: &str,
    (first, arrays, paths): (usize, &[Bound<'_, PyAny>], &[ParamPath]),
) -> PyResult<()> {
    let mut changed = None;
    let walked = tree.walk(params.clone(), params.clone(), &mut |number, again, _| {
        let array = &arrays[number - first];
        let [view, view_again] = [array, &again].map(|array| ArrayView::of(array, ArrayKind::NumPy));
        let is_same = again.is(array) || view.zip(view_again).is_some_and(|(view, again)| view.has_memory_of(again));
        if !is_same {
            changed = changed.or(Some(number - first));
        }
    });
    walked.map_err(|mismatch| mismatch.into_error(params.py(), root, root))?;
    changed.map_or(Ok(()), |changed| Err(error::not_kept(&format!("{root}{}", paths[changed].indices))))
}
