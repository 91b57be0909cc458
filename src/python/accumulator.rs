//! Gradients that are added up over several calls, to be used in one step.

use std::num::NonZeroUsize;

use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;

use super::buffers::{Header, Source};
use super::gradients::Found;
use super::parameter::{Parameter, Recipe, State};
use super::step::{Step, Task};
use crate::engine::{Sample, Stages, erase};
use crate::rules::accumulate::Accumulate;

/// The gradients that are waiting.
#[derive(Default)]
pub(super) struct Accumulator {
    /// How often gradients were added.
    pub(super) count: u64,
    /// The sum of their weights.
    weight: f64,
    /// The sum for each parameter that has had a gradient.
    sums: Vec<Option<Sum>>,
    /// The sums as parameters of the step that adds.
    summed: Vec<Parameter>,
    /// How the sums of each group move.
    recipes: Vec<Recipe>,
    step: Step,
    squares: Squares,
}

/// The sum of a parameter's gradients.
struct Sum {
    array: Py<PyAny>,
    /// Whether a gradient has been added since the sum was used; if not, it is 0.
    waits: bool,
}

/// What is saved of gradients that wait: how many there are, the sum of their weights, the sum of each parameter that had one, and
/// where they were looked at, the sample's stride and phase and the squares.
pub(super) type Waiting = (u64, f64, Vec<(usize, Py<PyAny>)>, Option<(usize, usize, f64)>);

/// How many units are looked at in a step, about: so few are read from memory in no time.
const SAMPLE: usize = 4;

/// What gradients have come to, where that is asked for.
#[derive(Default)]
struct Squares {
    /// The units that are looked at; none before the first gradient of a step.
    sample: Option<Sample>,
    /// The sum of squares of every gradient since the last step.
    grads: f64,
    /// How many gradients there were to it.
    count: u64,
}

impl Accumulator {
    /// Adds gradients of parameters of a task, each multiplied by a weight, and returns how often that was done. The task's groups
    /// say which are to be set to zero. A phase is that of the sample whose squares are wanted.
    pub(super) fn add<'py>(
        &mut self,
        py: Python<'py>,
        mut found: Vec<Found<'py>>,
        weight: f64,
        task: Task<'_>,
        make_state: &Py<PyAny>,
        phase: Option<usize>,
    ) -> PyResult<u64> {
        self.fit(task.parameters, task.recipes);
        // New sums belong to the parameters when the gradients were found good.
        for one in &mut found {
            let sum = match &self.sums[one.parameter] {
                Some(Sum { array, waits }) if *waits || is_like(array.bind(py), &one.weight) => array.clone_ref(py),
                _ => make_state.call1(py, (&one.weight, 0.0))?,
            };
            one.weight = sum.into_bound(py);
        }
        let task = Task { parameters: &self.summed, recipes: &self.recipes, ..task };
        self.step.ready(&mut found, task, make_state)?;
        self.step.fold(task, weight.into())?;
        let sample = phase.map(|phase| self.sample(phase));
        // SAFETY: nothing ran since the step was made ready.
        unsafe { self.step.run(py, sample) };
        if let Some(sample) = sample {
            self.squares.grads += self.step.batch.sampled_squares(sample);
            self.squares.count += 1;
        }
        for Found { parameter, weight, .. } in found {
            self.sums[parameter] = Some(Sum { array: weight.unbind(), waits: true });
        }
        self.count += 1;
        self.weight += weight;
        Ok(self.count)
    }

    /// Has room for all parameters, and a recipe for each group.
    fn fit(&mut self, parameters: &[Parameter], recipes: &[Recipe]) {
        for Parameter { place, group, .. } in &parameters[self.summed.len()..] {
            self.summed.push(Parameter {
                place: place.clone(),
                group: *group,
                state: State::NONE,
                decays: false,
                may_be_lazy: false,
            });
            self.sums.push(None);
        }
        for (group, recipe) in recipes.iter().enumerate() {
            if group == self.recipes.len() {
                self.recipes.push(Recipe { update: Some((erase(Accumulate), Stages::NONE)), keys: Vec::new() });
            }
            if let Some((_, stages)) = &mut self.recipes[group].update {
                stages.zero_grads = recipe.update.as_ref().is_some_and(|(_, stages)| stages.zero_grads);
            }
        }
    }

    /// The sums that are waiting as gradients of the parameters, which are these arrays.
    pub(super) fn found<'py>(&self, weights: &[Bound<'py, PyAny>]) -> Vec<Found<'py>> {
        let of = |(parameter, (sum, weight)): (usize, (&Option<Sum>, &Bound<'py, PyAny>))| {
            let Sum { array, .. } = sum.as_ref().filter(|sum| sum.waits)?;
            let grad = array.bind(weight.py()).clone();
            Some(Found { parameter, weight: weight.clone(), grad, made: None })
        };
        self.sums.iter().zip(weights).enumerate().filter_map(of).collect()
    }

    /// What is to be saved, if gradients are waiting.
    pub(super) fn waiting(&self, py: Python<'_>) -> Option<Waiting> {
        let waits = |(parameter, sum): (usize, &Option<Sum>)| {
            let sum = sum.as_ref().filter(|sum| sum.waits)?;
            Some((parameter, sum.array.clone_ref(py)))
        };
        let Squares { sample, grads, count } = &self.squares;
        let squares = sample.filter(|_| *count == self.count).map(|at| (at.stride.get(), at.phase, *grads));
        let sums = self.sums.iter().enumerate().filter_map(waits);
        (self.count > 0).then(|| (self.count, self.weight, sums.collect(), squares))
    }

    /// The accumulator in which these gradients are waiting.
    pub(super) fn with((count, weight, sums, squares): Waiting, parameters: &[Parameter], recipes: &[Recipe]) -> Self {
        let mut made = Self { count, weight, ..Self::default() };
        made.fit(parameters, recipes);
        for (parameter, array) in sums {
            if let Some(slot) = made.sums.get_mut(parameter) {
                *slot = Some(Sum { array, waits: true });
            }
        }
        if let Some((stride, phase, grads)) = squares {
            let sample = NonZeroUsize::new(stride).map(|stride| Sample { stride, phase });
            made.squares = Squares { sample, grads, count };
        }
        made
    }

    /// What the sums are divided by to be means.
    pub(super) fn divisor(&self) -> f64 {
        self.weight
    }

    /// The mean of the weights.
    #[expect(clippy::cast_precision_loss, reason = "nobody counts to 2⁵³")]
    pub(super) fn mean_weight(&self) -> f64 {
        self.weight / self.count as f64
    }

    /// Whether all weights are the same, but for rounding, with one more.
    pub(super) fn would_be_even(&self, weight: f64) -> bool {
        self.count == 0 || (self.mean_weight() / weight - 1.0).abs() < 1e-9
    }

    /// Begins anew, if the sums were used; they have been set to zero.
    pub(super) fn forget(&mut self, used: bool) {
        if used {
            self.count = 0;
            self.weight = 0.0;
            self.squares = Squares::default();
            for sum in self.sums.iter_mut().flatten() {
                sum.waits = false;
            }
        }
    }

    /// The units that are looked at until the next step, of which the batch is the first.
    fn sample(&mut self, phase: usize) -> Sample {
        *self.squares.sample.get_or_insert_with(|| {
            let units = self.step.batch.reduction_blocks();
            Sample { stride: NonZeroUsize::new(units.div_ceil(SAMPLE)).unwrap_or(NonZeroUsize::MIN), phase }
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
        let (share, count, divisor) = (stride.get() as f64, self.count as f64, self.divisor());
        let (small, large) = (share * self.squares.grads / count, share * of_sum / (divisor * divisor));
        (small + large).is_finite().then_some((self.count, small, large))
    }

    pub(super) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.sums.iter().flatten().try_for_each(|sum| visit.call(&sum.array))
    }
}

/// Whether a sum is one for this weight, which may be another than it was.
fn is_like(sum: &Bound<'_, PyAny>, weight: &Bound<'_, PyAny>) -> bool {
    let (sum, weight) = (Header::of(sum, Source::NumPy), Header::of(weight, Source::NumPy));
    sum.zip(weight).is_some_and(|(sum, weight)| sum.dtype() == weight.dtype() && sum.is_shaped_like(weight))
}
