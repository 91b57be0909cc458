//! Bandwidth probes: the memory-bandwidth bound (roofline) of optimizers with `N` states. Only with the feature `probes`.
//!
//! A probe reads and writes as many arrays, in the same engine and on the same threads, and only adds. Benchmarks compare with it.

use super::Visitor;
use crate::rule::{Hyperparameters, Optimizer, Real, Rule};

/// The names of the probes, by the number of states.
pub const NAMES: [&str; 4] = ["bandwidth_0", "bandwidth_1", "bandwidth_2", "bandwidth_3"];

/// Calls the visitor with the probe of that name; `None` if there is none.
pub(super) fn find<V: Visitor>(name: &str, visitor: V) -> Option<V::Output> {
    match NAMES.iter().position(|&known| known == name)? {
        0 => Some(visitor.visit::<_, BandwidthProbe<0>>()),
        1 => Some(visitor.visit::<_, BandwidthProbe<1>>()),
        2 => Some(visitor.visit::<_, BandwidthProbe<2>>()),
        _ => Some(visitor.visit::<_, BandwidthProbe<3>>()),
    }
}

/// `θ ← θ + g`; each state likewise.
#[derive(Clone, Copy, Debug)]
pub struct BandwidthProbe<const N: usize>;

impl<const N: usize> Hyperparameters for BandwidthProbe<N> {
    fn from_values(values: &[f64]) -> Option<Self> {
        values.is_empty().then_some(Self)
    }
}

impl<F: Real, const N: usize> Rule<F, N> for BandwidthProbe<N> {
    const DIVIDES: bool = false;

    #[inline(always)]
    fn apply(self, weight: F, grad: F, state: [F; N]) -> (F, [F; N]) {
        (weight + grad, state.map(|state| state + grad))
    }
}

impl<const N: usize> Optimizer<N> for BandwidthProbe<N> {
    const STATE: [&'static str; N] = *["stream_0", "stream_1", "stream_2"].first_chunk().expect("at most three states");
    type Rule<F: Real> = Self;

    fn at<F: Real>(&self, _: u64) -> Self {
        *self
    }
}
