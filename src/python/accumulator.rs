//! Gradients that are added up over several calls, to be used in one step.

use std::num::NonZeroUsize;

use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;

use super::buffers::Source;
use super::gradients::{Form, Found};
use super::parameter::{Parameter, Recipe, State};
use super::step::{Step, Task};
use crate::engine::{Sample, Stages, erased};
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

/// How many units are looked at in a step, about: so few are read from memory in no time.
const SAMPLE: usize = 4;

/// What gradients have come to, where that is asked for.
#[derive(Default)]
struct Squares {
    /// The units that are looked at, others at each step; none before the first gradient of one.
    sample: Option<Sample>,
    /// Which sample is next.
    phase: usize,
    /// The sum of squares of every gradient since the last step.
    grads: f64,
    /// How many gradients there were to it.
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
            self.recipes.push(Recipe { update: Some((erased(Roof::<0>), Stages::NONE)), keys: Vec::new() });
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
            let sample = self.sample();
            self.step.run(py, Some(sample));
            self.squares.grads += self.step.batch.sampled_squares(sample);
            self.squares.count += 1;
        } else {
            self.step.run(py, None);
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

    /// The units that are looked at until the next step, of which the batch is the first.
    fn sample(&mut self) -> Sample {
        let Self { squares: Squares { sample, phase, .. }, step, .. } = self;
        *sample.get_or_insert_with(|| {
            let stride = NonZeroUsize::new(step.batch.units().div_ceil(SAMPLE)).unwrap_or(NonZeroUsize::MIN);
            Sample { stride, phase: *phase }
        })
    }

    /// The units that a step with the sums is to look at, if each gradient was looked at, and there are two or more.
    pub(super) fn sampled(&self) -> Option<Sample> {
        self.squares.sample.filter(|_| self.count > 1 && self.squares.count == self.count)
    }

    /// How many gradients there are, the mean of their squared norms, and that of the norm of their mean, from the squares of
    /// their sum; if all are finite. They are estimates where only some units are looked at.
    #[expect(clippy::cast_precision_loss, reason = "nobody has 2⁵³ units")]
    pub(super) fn squares(&self, Sample { stride, .. }: Sample, of_sum: f64) -> Option<(u64, f64, f64)> {
        let (share, count) = (stride.get() as f64, self.divisor());
        let (small, large) = (share * self.squares.grads / count, share * of_sum / (count * count));
        (small + large).is_finite().then_some((self.count, small, large))
    }

    pub(super) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.sums.iter().flatten().try_for_each(|sum| visit.call(sum))
    }
}
