//! The plan of a step: its checked tensors, and the kernels that update them.
//!
//! A step must not fail half way, so all that it touches is read and checked before the first write. Most steps update the
//! same arrays as the step before, so a plan is kept and reused:
//!
//! ```text
//! reuse_or_build(gradients):
//!     if the fingerprint of the present arrays is that of the plan:
//!         put moved gradients at their addresses, and check their overlaps
//!     else:
//!         view and check all arrays; create missing state; check overlaps; record the fingerprint
//! ```
//!
//! The [fingerprint](super::fingerprint) has everything that building reads of parameters and arrays, but for the addresses of gradients,
//! which are mostly new arrays. So a plan that is reused is the one that building would give. It has addresses of memory and keeps no array
//! alive: whoever runs it guarantees that no Python code ran since.

use std::{iter, mem};

use pyo3::prelude::*;

use super::array_view::{ArrayKind, Located};
use super::fingerprint::{Comparison, Words};
use super::param_arrays::ParamArrays;
use super::param_groups::GradSlot;
use super::param_path::GradLayout;
use super::parameter::{GroupConfig, OperandNames, Parameter};
use super::shared_memory::check_apart;
use super::state::State;
use super::{calls, error};
use crate::engine::{
    AVERAGE, Average, Batch, Dtype, Factor, GRAD, Kernel, Norm, Overlap, OverlapChecker, STATE, Sample, Span, Stages,
    Stats, WEIGHT,
};

/// The parameters that a step may update, and how.
#[derive(Clone, Copy)]
pub(super) struct StepContext<'a> {
    pub(super) layout: GradLayout,
    pub(super) kind: ArrayKind,
    pub(super) parameters: &'a [Parameter],
    pub(super) configs: &'a [GroupConfig],
    pub(super) average: Option<Average>,
    /// The number of the step, from 1.
    pub(super) number: u64,
    /// `make_state(weight, initial)` returns a new state array.
    pub(super) make_state: &'a Py<PyAny>,
    /// Whether all gradients are set to zero, and not only those of groups that ask for it.
    pub(super) zero_grads: bool,
}

/// What the tensors of one kernel have in common.
#[derive(Clone, Copy, PartialEq, Eq)]
struct KernelKey {
    group: usize,
    dtype: Dtype,
    in_step: InStep,
}

/// What a step does with a parameter.
#[derive(Clone, Copy, PartialEq, Eq)]
struct InStep {
    /// The step number minus the parameter's step count. It stays constant while the parameter is in every step, so a plan fits many
    /// steps. For external state without step counts: 0 before the first step, then 1.
    lag: u64,
    counts_steps: bool,
    /// The step number minus the number of averaged weights, if the step updates the average.
    average_lag: Option<u64>,
    decays: bool,
    zero_grad: bool,
}

impl StepContext<'_> {
    #[inline]
    fn in_step(&self, &Parameter { group, decays, .. }: &Parameter, state: &State) -> InStep {
        let average_lag = self.averages().then(|| self.number.wrapping_sub(state.average_count));
        let counts_steps = state.external.as_ref().is_none_or(|external| external.step_count.is_some());
        let lag = if counts_steps { self.number.wrapping_sub(state.step_count) } else { state.step_count };
        InStep { lag, counts_steps, average_lag, decays, zero_grad: self.configs[group].zeroes(self.zero_grads) }
    }

    /// Whether the step updates averages.
    #[inline]
    fn averages(&self) -> bool {
        self.average.is_some_and(|average| average.includes(self.number))
    }

    /// Whether an average is to be created. External state has one from the first step on, also if that step does not count, so that
    /// the states of all parameters have the same names.
    #[inline]
    fn lacks_average(&self, state: &State) -> bool {
        self.average.is_some() && state.average.is_none() && (state.external.is_some() || self.averages())
    }

    /// Writes the part of a fingerprint that is about a parameter and its state.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "on 32 bits, of counts that nobody reaches")]
    fn put(&self, slot: &GradSlot<'_>, state: &State, in_step: InStep, words: &mut impl Words) -> bool {
        let group = self.parameters[slot.parameter].group;
        let InStep { lag, counts_steps, average_lag, decays, zero_grad } = in_step;
        let flags = [counts_steps, average_lag.is_some(), decays, zero_grad, self.lacks_average(state)];
        let flags = flags.into_iter().fold(state.arrays.len(), |word, flag| word << 1 | usize::from(flag));
        let names = [state.names, self.configs[group].state_names].map(|names| names.as_ptr() as usize);
        words.put([slot.parameter, group, flags, lag as usize, average_lag.unwrap_or(0) as usize, names[0], names[1]])
    }

    fn kernel(&self, key: KernelKey, grad_factor: Factor) -> PyResult<Box<dyn Kernel>> {
        let KernelKey { group, dtype, in_step } = key;
        let InStep { lag, counts_steps, average_lag, decays, zero_grad } = in_step;
        let GroupConfig { rule: Some(rule), stages, .. } = &self.configs[group] else {
            return Err(error::unknown_rule(""));
        };
        let average_count = average_lag.map(|lag| self.number.wrapping_sub(lag));
        let average = self.average.zip(average_count);
        let stages = Stages {
            grad_factor,
            average: average.and_then(|(average, count)| average.coefficient(self.number, count)),
            decay_rate: if decays { stages.decay_rate } else { 0.0 },
            zero_grads: zero_grad,
            ..*stages
        };
        let step_count = if counts_steps { self.number.wrapping_sub(lag) } else { lag };
        rule.at(step_count + 1, dtype, stages).map_err(|unfit| error::unfit(group, unfit, dtype))
    }
}

/// What a step works with, kept for the next one.
#[derive(Default)]
pub(super) struct StepPlan {
    pub(super) batch: Batch<'static>,
    kernels: Vec<Box<dyn Kernel>>,
    kernel_keys: Vec<KernelKey>,
    /// What the batch was built from; empty if it is not complete.
    fingerprint: Vec<usize>,
    grads: Vec<GradPlace>,
    overlaps: OverlapChecker,
    written: Spans,
    read: Spans,
    new_states: NewStates,
}

/// The states that were created in this step, by slot; empty if there are none.
#[derive(Default)]
struct NewStates(Vec<Option<Box<State>>>);

impl NewStates {
    /// The state that a slot's parameter has in this step.
    #[inline]
    fn or_present<'a>(&'a self, slot: usize, parameter: &'a Parameter) -> &'a State {
        self.0.get(slot).and_then(Option::as_deref).unwrap_or(&parameter.state)
    }
}

/// Where the gradient of a tensor is.
struct GradPlace {
    address: usize,
    /// Its span among those that are written or read, if it has elements.
    span: Option<usize>,
}

/// The memory of operands, with slot and operand of each.
#[derive(Default)]
struct Spans {
    spans: Vec<Span>,
    owners: Vec<(usize, usize)>,
}

impl Spans {
    fn clear(&mut self) {
        self.spans.clear();
        self.owners.clear();
    }

    fn push(&mut self, span: Span, owner: (usize, usize)) {
        self.spans.push(span);
        self.owners.push(owner);
    }
}

impl StepPlan {
    /// Plans a step. Afterwards the batch is that of the step, and states that were missing are among the
    /// [new ones](Self::take_new_states).
    ///
    /// Returns whether the last plan was reused without running Python code.
    pub(super) fn reuse_or_build(&mut self, slots: &mut [GradSlot<'_>], context: StepContext<'_>) -> PyResult<bool> {
        if self.reuse(slots, context)? {
            return Ok(true);
        }
        self.build(slots, context)?;
        Ok(false)
    }

    /// Forgets states that a step created and did not come to use.
    pub(super) fn begin_step(&mut self) {
        self.new_states.0.clear();
    }

    /// The states created in this step, by slot; empty if there are none.
    pub(super) fn take_new_states(&mut self) -> Vec<Option<Box<State>>> {
        mem::take(&mut self.new_states.0)
    }

    /// Whether the step is so short that the interpreter is held during it.
    pub(super) fn is_short(&self) -> bool {
        is_short(&self.batch)
    }

    fn reuse(&mut self, slots: &[GradSlot<'_>], context: StepContext<'_>) -> PyResult<bool> {
        // Whatever happens until the end, there is no complete plan.
        let mut fingerprint = mem::take(&mut self.fingerprint);
        let Some(has_moved) = self.fits(&fingerprint, slots, context) else {
            fingerprint.clear();
            self.fingerprint = fingerprint;
            return Ok(false);
        };
        if has_moved && self.check_overlaps(slots, context)? {
            return Ok(false);
        }
        self.fingerprint = fingerprint;
        Ok(true)
    }

    /// Whether the plan with this fingerprint fits the slots, and then whether gradients have moved; puts those at their new addresses.
    fn fits(&mut self, fingerprint: &[usize], slots: &[GradSlot<'_>], context: StepContext<'_>) -> Option<bool> {
        let mut words = Comparison(fingerprint);
        if !self.new_states.0.is_empty() || !words.put([slots.len()]) {
            return None;
        }
        let mut has_moved = false;
        for ((slot, place), tensor) in slots.iter().zip(&mut self.grads).zip(self.batch.tensors_mut()) {
            let parameter = &context.parameters[slot.parameter];
            let state = &parameter.state;
            let in_step = context.in_step(parameter, state);
            if !context.put(slot, state, in_step, &mut words) {
                return None;
            }
            let grad = slot.put(state, in_step.average_lag.is_some(), context.kind, &mut words)?;
            if grad.may_be_lazy && !slot.is_resolved {
                return None;
            }
            let address = grad.address as usize;
            if address != place.address {
                has_moved = true;
                let moved = if in_step.zero_grad { &mut self.written } else { &mut self.read };
                if let Some(span) = place.span.map(|span| &mut moved.spans[span]) {
                    *span = span.moved_to(span.start.wrapping_add(address).wrapping_sub(place.address));
                }
                place.address = address;
                // SAFETY: the gradient differs from the one that was checked in its address alone; as in `build_once` for the rest.
                unsafe { tensor.move_grad(grad.address) };
            }
        }
        Some(has_moved)
    }

    fn build(&mut self, slots: &mut [GradSlot<'_>], context: StepContext<'_>) -> PyResult<()> {
        let kind = context.kind;
        for (i, slot) in slots.iter_mut().enumerate() {
            slot.convert_scalar(kind)?;
            slot.resolve(kind)?;
            slot.learn(kind, self.new_states.or_present(i, &context.parameters[slot.parameter]))?;
        }
        // Parameters without state are checked first, so that none is created for a step that fails.
        self.build_checked(slots, context)?;
        if self.batch.len() == slots.len() {
            return Ok(());
        }
        self.new_states.0.resize_with(slots.len(), || None);
        for (i, slot) in slots.iter().enumerate() {
            let Parameter { group, state, .. } = &context.parameters[slot.parameter];
            let config = &context.configs[*group];
            let Some(rule) = &config.rule else { return Err(error::unknown_rule("")) };
            let lacks_average = context.lacks_average(state);
            if !state.is_of(config.state_names) || lacks_average {
                let py = slot.weight.py();
                let make = |initial: f64| context.make_state.call1(py, (&slot.weight, initial));
                let state = self.new_states.0[i].insert(Box::new(state.for_rule(py, &**rule, lacks_average, make)?));
                slot.learn(kind, state)?;
            }
        }
        self.build_checked(slots, context)
    }

    /// Builds the plan until no Python code ran meanwhile: comparing memory runs some, which may change what was read before. Memory is
    /// compared again only if it has changed.
    fn build_checked(&mut self, slots: &[GradSlot<'_>], context: StepContext<'_>) -> PyResult<()> {
        while self.build_once(slots, context)? {}
        if self.batch.len() < slots.len() {
            self.fingerprint.clear();
        }
        Ok(())
    }

    /// Builds the plan. A parameter that needs state is checked, but is not in it. Returns whether Python code ran.
    fn build_once(&mut self, slots: &[GradSlot<'_>], context: StepContext<'_>) -> PyResult<bool> {
        self.clear();
        let mut fingerprint = mem::take(&mut self.fingerprint);
        fingerprint.put([slots.len()]);
        for (i, slot) in slots.iter().enumerate() {
            let parameter = &context.parameters[slot.parameter];
            let group = parameter.group;
            let state = self.new_states.or_present(i, parameter);
            let in_step = context.in_step(parameter, state);
            let names = OperandNames { parameter, state, layout: context.layout };
            let operands = slot.operands(state, in_step.average_lag.is_some());
            let arrays = ParamArrays::view(context.kind, &operands, in_step.zero_grad, names)?;
            let mut place = GradPlace { address: 0, span: None };
            let has_state = state.is_of(context.configs[group].state_names) && !context.lacks_average(state);
            context.put(slot, state, in_step, &mut fingerprint);
            if let Some(grad) = slot.put(state, in_step.average_lag.is_some(), context.kind, &mut fingerprint) {
                place.address = grad.address as usize;
            }
            for (operand, span) in arrays.spans() {
                let spans = if operand == GRAD && !in_step.zero_grad { &mut self.read } else { &mut self.written };
                if operand == GRAD {
                    place.span = Some(spans.spans.len());
                }
                spans.push(span, (i, operand));
            }
            let spec = arrays.spec();
            if !has_state || context.configs[group].rule.is_none() {
                continue;
            }
            let key = KernelKey { group, dtype: spec.dtype, in_step };
            // The parameters of a group mostly have one kernel.
            if self.kernel_keys.last() != Some(&key) {
                self.kernel_keys.push(key);
                self.batch.add_kernel(spec);
            }
            self.grads.push(place);
            // SAFETY: no step is taken unless `check_overlaps` finds that nothing overlaps. Only `run` and its like use the batch, and
            // their callers promise that no Python code ran since, which could free an array or give it other memory: references to
            // arrays keep them alive, but don't keep them where they are.
            self.batch.push(unsafe { arrays.tensor() }, self.kernel_keys.len() - 1, slot.parameter);
        }
        let python_ran = self.check_overlaps(slots, context)?;
        self.fingerprint = fingerprint;
        Ok(python_ran)
    }

    fn clear(&mut self) {
        self.fingerprint.clear();
        self.batch.clear();
        self.kernel_keys.clear();
        self.grads.clear();
        self.written.clear();
        self.read.clear();
    }

    /// Checks that no array that is written shares memory with another. Returns whether Python code ran.
    fn check_overlaps(&mut self, slots: &[GradSlot<'_>], context: StepContext<'_>) -> PyResult<bool> {
        let mut python_ran = false;
        let Self { overlaps, written, read, new_states, .. } = self;
        overlaps.check(&written.spans, &read.spans, |overlap| {
            python_ran = true;
            let (a, b) = match overlap {
                Overlap::Written(a, b) => (written.owners[a], written.owners[b]),
                Overlap::Read(a, b) => (written.owners[a], read.owners[b]),
            };
            let names = |i: usize| {
                let parameter = &context.parameters[slots[i].parameter];
                OperandNames { parameter, state: new_states.or_present(i, parameter), layout: context.layout }
            };
            let array = |(i, operand): (usize, usize)| {
                let mut operands = slots[i].operands(names(i).state, true);
                operands.find(|(other, _)| *other == operand).map(|(_, array)| array.clone())
            };
            match (array(a), array(b)) {
                (Some(first), Some(second)) => {
                    check_apart(&first, &second, || (names(a.0).of(a.1), names(b.0).of(b.1)))
                }
                _ => Err(error::bad_index(a.1)),
            }
        })?;
        Ok(python_ran)
    }

    /// Makes the kernels of the step, which multiply gradients by a factor.
    pub(super) fn make_kernels(&mut self, context: StepContext<'_>, grad_factor: Factor) -> PyResult<()> {
        let Self { kernels, kernel_keys, .. } = self;
        kernels.clear();
        for &key in &*kernel_keys {
            kernels.push(context.kernel(key, grad_factor)?);
        }
        Ok(())
    }

    /// Updates the tensors.
    ///
    /// # Safety
    /// No Python code ran since the plan was [reused or built](Self::reuse_or_build). While the interpreter is released, other threads
    /// don't free, move or write the memory of the arrays: the documentation forbids it.
    pub(super) unsafe fn run(&mut self, py: Python<'_>, sample: Option<Sample>) {
        let kernels = &self.kernels;
        detached(py, &mut self.batch, |batch| batch.run(kernels, sample));
    }

    /// [Updates the tensors](Self::run), and returns the number of elements and the statistics of each.
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
    pub(super) unsafe fn grad_norm(&mut self, py: Python<'_>, norm: Norm, grad_factor: Factor) -> Factor {
        detached(py, &mut self.batch, |batch| batch.grad_norm(norm, grad_factor))
    }
}

impl<'py> GradSlot<'py> {
    /// The arrays of a step, by operand.
    #[inline]
    fn operands<'a>(
        &'a self,
        state: &'a State,
        averages: bool,
    ) -> impl Iterator<Item = (usize, &'a Bound<'py, PyAny>)> + Clone {
        let py = self.weight.py();
        let arrays = state.arrays.iter().enumerate().map(move |(k, array)| (STATE + k, array.bind(py)));
        let average = state.average.iter().filter(move |_| averages).map(move |array| (AVERAGE, array.bind(py)));
        iter::once((WEIGHT, &self.weight)).chain(iter::once((GRAD, &self.grad))).chain(arrays).chain(average)
    }

    /// Puts the facts about all arrays, and locates the gradient; `None` if they differ.
    #[inline]
    fn put(&self, state: &State, averages: bool, kind: ArrayKind, words: &mut impl Words) -> Option<Located> {
        let py = self.weight.py();
        kind.put(&self.weight, true, words)?;
        let grad = kind.put(&self.grad, false, words)?;
        for array in &state.arrays {
            kind.put(array.bind(py), true, words)?;
        }
        if let Some(array) = state.average.as_ref().filter(|_| averages) {
            kind.put(array.bind(py), true, words)?;
        }
        Some(grad)
    }

    /// [Learns](ArrayKind::learn) the types of all arrays.
    fn learn(&self, kind: ArrayKind, state: &State) -> PyResult<()> {
        self.operands(state, true).try_for_each(|(_, array)| kind.learn(array))
    }
}

/// A step of fewer elements is over before the interpreter could be released and acquired again.
const DETACH: usize = 32 << 10;

fn is_short(batch: &Batch<'_>) -> bool {
    batch.total() < DETACH
}

/// Works on a batch, without the interpreter if it is large.
fn detached<T: Send>(
    py: Python<'_>,
    batch: &mut Batch<'static>,
    work: impl FnOnce(&mut Batch<'static>) -> T + Send,
) -> T {
    if is_short(batch) { work(batch) } else { calls::detached(py, || work(batch)) }
}
