//! Gradients that are added up over several calls, to be used in one step.

use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;

use super::buffers::Source;
use super::gradients::{Form, Found};
use super::parameter::{Parameter, Recipe, State};
use super::step::{Step, Task};
use crate::engine::{Stages, watching_squares};
use crate::rules::roof::Roof;

/// The gradients that are waiting.
#[derive(Default)]
pub(super) struct Accumulator {
    /// How often gradients were added.
    pub(super) count: u64,
    /// The sum for each parameter that had a gradient.
    sums: Vec<Option<Py<PyAny>>>,
    /// The sums as parameters of the step that adds.
    summed: Vec<Parameter>,
    recipes: Vec<Recipe>,
    step: Step,
    squares: Squares,
}

/// How many units are looked at in a step, about: their squares are more work than the sums, which wait for memory.
const SAMPLE: usize = 4;

/// What gradients and their sums have come to, where that is asked for: in every so many units, others at each step.
#[derive(Default)]
struct Squares {
    /// One unit of so many is looked at; 0 before the first gradient of a step.
    stride: usize,
    /// Which one.
    phase: usize,
    /// The sum of squares of every gradient since the last step.
    grads: f64,
    /// That of each parameter's sum.
    sums: Vec<f64>,
    /// How many gradients there were to them.
    count: u64,
}

impl Accumulator {
    /// Adds gradients, and returns how often that was done.
    pub(super) fn add<'py>(
        &mut self,
        py: Python<'py>,
        mut found: Vec<Found<'py>>,
        form: Form,
        parameters: &[Parameter],
        make_state: &Py<PyAny>,
        squares: bool,
    ) -> PyResult<u64> {
        if self.recipes.is_empty() {
            // The roof without streams adds the gradient to the weight.
            self.recipes.push(Recipe { update: Some((watching_squares(Roof::<0>), Stages::NONE)), keys: Vec::new() });
        }
        for Parameter { place, .. } in &parameters[self.summed.len()..] {
            self.summed.push(Parameter {
                place: place.clone(),
                group: 0,
                state: State::NONE,
                decays: false,
                may_be_lazy: false,
            });
            self.sums.push(None);
        }
        // New sums belong to the parameters when the gradients were found good.
        for one in &mut found {
            let sum = match &self.sums[one.parameter] {
                Some(sum) => sum.clone_ref(py),
                None => make_state.call1(py, (&one.weight, 0.0))?,
            };
            one.weight = sum.into_bound(py);
        }
        let (parameters, recipes) = (&*self.summed, &*self.recipes);
        let source = Source::NumPy;
        let task = Task { form, source, parameters, recipes, average: None, number: 1, zero_grads: false };
        self.step.ready(&mut found, task, make_state)?;
        self.step.fold(task, 1.0);
        if squares {
            self.squares.sums.resize(self.summed.len(), 0.0);
            if self.squares.stride == 0 {
                self.squares.stride = self.step.units().div_ceil(SAMPLE).max(1);
            }
            let Squares { stride, phase, .. } = self.squares;
            let parameters: Vec<_> = found.iter().map(|one| one.parameter).collect();
            // Parameter and unit together come to the phase, by the stride.
            let first = |i: usize| (phase % stride + stride - parameters[i] % stride) % stride;
            for (&parameter, [grad, sum]) in parameters.iter().zip(self.step.run_with_squares(py, stride, &first)) {
                self.squares.grads += grad;
                self.squares.sums[parameter] = sum;
            }
            self.squares.count += 1;
        } else {
            self.step.run(py);
        }
        for Found { parameter, weight, .. } in found {
            self.sums[parameter] = Some(weight.unbind());
        }
        self.count += 1;
        Ok(self.count)
    }

    /// The sums as gradients of the parameters, which are these arrays.
    pub(super) fn found<'py>(&self, weights: &[Bound<'py, PyAny>]) -> Vec<Found<'py>> {
        let of = |(parameter, (sum, weight)): (usize, (&Option<Py<PyAny>>, &Bound<'py, PyAny>))| {
            let grad = sum.as_ref()?.bind(weight.py()).clone();
            Some(Found { parameter, weight: weight.clone(), grad, made: None })
        };
        self.sums.iter().zip(weights).enumerate().filter_map(of).collect()
    }

    /// What the sums are divided by to be means.
    #[expect(clippy::cast_precision_loss, reason = "nobody counts to 2⁵³")]
    pub(super) fn divisor(&self) -> f64 {
        self.count as f64
    }

    /// Begins anew, if the sums were used; they have been set to zero.
    pub(super) fn forget(&mut self, used: bool) {
        if used {
            self.count = 0;
            self.squares = Squares { phase: self.squares.phase.wrapping_add(1), ..Squares::default() };
        }
    }

    /// The squares of the gradients that are waiting, added up, and those of their sum; if they were asked for each time. They
    /// are estimates where only some units were looked at.
    #[expect(clippy::cast_precision_loss, reason = "nobody has 2⁵³ units")]
    pub(super) fn squares(&self) -> Option<(f64, f64)> {
        let Squares { stride, grads, sums, count, .. } = &self.squares;
        let share = *stride as f64;
        (*count > 0 && *count == self.count).then(|| (share * grads, share * sums.iter().sum::<f64>()))
    }

    pub(super) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.sums.iter().flatten().try_for_each(|sum| visit.call(sum))
    }
}
