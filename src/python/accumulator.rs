//! Gradient accumulation: the weighted sum of the gradients of micro-batches, which a step then divides by the sum of their weights.
//!
//! Adding is a step too, whose parameters are the sums and whose rule is [`Accumulate`]. For a gradient noise scale it also sums the
//! squares of a sample of the gradients: see [`Batch::sampled_squares`](crate::engine::Batch::sampled_squares).

use std::num::NonZeroUsize;

use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;

use super::array_view::{ArrayKind, ArrayView};
use super::param_groups::GradSlot;
use super::parameter::{GroupConfig, Parameter};
use super::state::State;
use super::step_plan::{StepContext, StepPlan};
use crate::engine::{Sample, Stages, erase};
use crate::rules::accumulate::Accumulate;

/// The gradients that wait for a step.
#[derive(Default)]
pub(super) struct Accumulator {
    /// The number of micro-batches.
    pub(super) pending_batches: u64,
    /// The sum of their weights.
    pub(super) total_weight: f64,
    /// The sum of each parameter that has had a gradient.
    sums: Vec<Option<GradSum>>,
    /// The sums as parameters, and the configurations of their groups.
    parameters: Vec<Parameter>,
    configs: Vec<GroupConfig>,
    plan: StepPlan,
    squares: GradSquares,
}

/// The sum of a parameter's gradients.
struct GradSum {
    array: Py<PyAny>,
    /// Whether a gradient waits in it; otherwise it is zero.
    is_pending: bool,
}

/// Gradients that wait, as they are saved: the number of micro-batches, the sum of their weights, the sums by parameter, and for a noise
/// scale the sample's stride and phase with the sum of squares.
pub(super) type SavedGradients = (u64, f64, Vec<(usize, Py<PyAny>)>, Option<(usize, usize, f64)>);

/// The number of reduction blocks that are sampled in a step, about. So few take no time.
const SAMPLED_BLOCKS: usize = 4;

/// The squared norms of gradients, for a noise scale.
#[derive(Default)]
struct GradSquares {
    /// The sample; `None` before the first gradient of a step.
    sample: Option<Sample>,
    /// The sum of the squares of all gradients.
    sum: f64,
    /// The number of gradients in it.
    count: u64,
}

impl Accumulator {
    /// Adds the gradients of parameters, multiplied by a weight, and returns the number of micro-batches. The stages of the context's
    /// groups say which gradients are set to zero. With a phase, that sample of their squares is summed.
    pub(super) fn add<'py>(
        &mut self,
        py: Python<'py>,
        mut slots: Vec<GradSlot<'py>>,
        weight: f64,
        context: StepContext<'_>,
        phase: Option<usize>,
    ) -> PyResult<u64> {
        self.extend_to(context.parameters, context.configs);
        // The parameters own new sums when the gradients have been checked.
        for slot in &mut slots {
            let sum = match &self.sums[slot.parameter] {
                Some(GradSum { array, is_pending }) if *is_pending || fits(array.bind(py), &slot.weight) => {
                    array.clone_ref(py)
                }
                _ => context.make_state.call1(py, (&slot.weight, 0.0))?,
            };
            slot.weight = sum.into_bound(py);
        }
        let context = StepContext { parameters: &self.parameters, configs: &self.configs, ..context };
        self.plan.reuse_or_build(&mut slots, context)?;
        self.plan.make_kernels(context, weight.into())?;
        let sample = phase.map(|phase| self.sample(phase));
        // SAFETY: no Python code ran since the plan was reused or built.
        unsafe { self.plan.run(py, sample) };
        if let Some(sample) = sample {
            self.squares.sum += self.plan.batch.sampled_squares(sample);
            self.squares.count += 1;
        }
        for GradSlot { parameter, weight, .. } in slots {
            self.sums[parameter] = Some(GradSum { array: weight.unbind(), is_pending: true });
        }
        self.pending_batches += 1;
        self.total_weight += weight;
        Ok(self.pending_batches)
    }

    /// Makes room for all parameters, and takes from their groups which gradients are set to zero.
    fn extend_to(&mut self, parameters: &[Parameter], configs: &[GroupConfig]) {
        for Parameter { path, group, .. } in &parameters[self.parameters.len()..] {
            let (path, group) = (path.clone(), *group);
            self.parameters.push(Parameter { path, group, state: State::NONE, decays: false, may_be_lazy: false });
            self.sums.push(None);
        }
        self.configs.resize_with(configs.len(), || GroupConfig { rule: Some(erase(Accumulate)), ..GroupConfig::NONE });
        for (own, config) in self.configs.iter_mut().zip(configs) {
            own.stages = Stages { zero_grads: config.stages.zero_grads, ..Stages::NONE };
        }
    }

    /// The sums as gradients of the parameters, which are these arrays.
    pub(super) fn grads<'py>(&self, weights: &[Bound<'py, PyAny>]) -> Vec<GradSlot<'py>> {
        let of = |(parameter, (sum, weight)): (usize, (&Option<GradSum>, &Bound<'py, PyAny>))| {
            let GradSum { array, .. } = sum.as_ref().filter(|sum| sum.is_pending)?;
            Some(GradSlot::new(parameter, weight.clone(), array.bind(weight.py()).clone()))
        };
        self.sums.iter().zip(weights).enumerate().filter_map(of).collect()
    }

    /// The gradients that wait, to be saved.
    pub(super) fn save(&self, py: Python<'_>) -> Option<SavedGradients> {
        let pending = |(parameter, sum): (usize, &Option<GradSum>)| {
            let sum = sum.as_ref().filter(|sum| sum.is_pending)?;
            Some((parameter, sum.array.clone_ref(py)))
        };
        let GradSquares { sample, sum, count } = &self.squares;
        let squares = sample.filter(|_| *count == self.pending_batches);
        let squares = squares.map(|sample| (sample.stride.get(), sample.phase, *sum));
        let sums = self.sums.iter().enumerate().filter_map(pending);
        (self.pending_batches > 0).then(|| (self.pending_batches, self.total_weight, sums.collect(), squares))
    }

    /// The accumulator with gradients that were saved.
    pub(super) fn restore(saved: SavedGradients, parameters: &[Parameter], configs: &[GroupConfig]) -> Self {
        let (pending_batches, total_weight, sums, squares) = saved;
        let mut restored = Self { pending_batches, total_weight, ..Self::default() };
        restored.extend_to(parameters, configs);
        for (parameter, array) in sums {
            if let Some(sum) = restored.sums.get_mut(parameter) {
                *sum = Some(GradSum { array, is_pending: true });
            }
        }
        if let Some((stride, phase, sum)) = squares {
            let sample = NonZeroUsize::new(stride).map(|stride| Sample { stride, phase });
            restored.squares = GradSquares { sample, sum, count: pending_batches };
        }
        restored
    }

    #[expect(clippy::cast_precision_loss, reason = "counts are below 2⁵³")]
    pub(super) fn mean_weight(&self) -> f64 {
        self.total_weight / self.pending_batches as f64
    }

    /// Whether all weights would be equal, but for rounding, with this one.
    pub(super) fn has_equal_weights_with(&self, weight: f64) -> bool {
        self.pending_batches == 0 || (self.mean_weight() / weight - 1.0).abs() < 1e-9
    }

    /// Starts again, after the sums were used and set to zero.
    pub(super) fn reset(&mut self) {
        self.pending_batches = 0;
        self.total_weight = 0.0;
        self.squares = GradSquares::default();
        for sum in self.sums.iter_mut().flatten() {
            sum.is_pending = false;
        }
    }

    /// The sample until the next step, for which the plan's batch is the first.
    fn sample(&mut self, phase: usize) -> Sample {
        let blocks = self.plan.batch.reduction_blocks();
        let stride = NonZeroUsize::new(blocks.div_ceil(SAMPLED_BLOCKS)).unwrap_or(NonZeroUsize::MIN);
        *self.squares.sample.get_or_insert(Sample { stride, phase })
    }

    /// The sample that a step with the sums takes, if all gradients were sampled, and there are two or more.
    pub(super) fn sample_of_sums(&self) -> Option<Sample> {
        let is_complete = self.pending_batches > 1 && self.squares.count == self.pending_batches;
        self.squares.sample.filter(|_| is_complete)
    }

    /// The number of gradients, the mean of their squared norms, and the squared norm of their mean, from the sampled squares of their
    /// sum; `None` if they are not finite. A sample of all blocks gives them exactly, another one estimates them.
    #[expect(clippy::cast_precision_loss, reason = "there are fewer than 2⁵³ blocks")]
    pub(super) fn squared_norms(&self, Sample { stride, .. }: Sample, of_sum: f64) -> Option<(u64, f64, f64)> {
        let (scale, count) = (stride.get() as f64, self.pending_batches as f64);
        let small = scale * self.squares.sum / count;
        let large = scale * of_sum / (self.total_weight * self.total_weight);
        (small + large).is_finite().then_some((self.pending_batches, small, large))
    }

    pub(super) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.sums.iter().flatten().try_for_each(|sum| visit.call(&sum.array))
    }
}

/// Whether a sum has the dtype and shape of a weight, which may be another array than before.
fn fits(sum: &Bound<'_, PyAny>, weight: &Bound<'_, PyAny>) -> bool {
    let [sum, weight] = [sum, weight].map(|array| ArrayView::of(array, ArrayKind::NumPy));
    sum.zip(weight).is_some_and(|(sum, weight)| sum.dtype() == weight.dtype() && sum.has_shape_of(weight))
}
