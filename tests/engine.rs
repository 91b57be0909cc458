//! The engine against a naive reference: each rule in one loop over the elements.

use std::num::NonZeroUsize;

use lrcore::engine::simd::{self, Level};
use lrcore::engine::{
    BLOCK, Batch, Decay, Dtype, Native, Sample, Stages, Tensor, TensorSpec, create, parallel, signature,
};
use lrcore::rule::{Optimizer, Real, Rule};
use lrcore::rules::{self, Visitor};

const STEPS: u64 = 3;
const LENGTHS: [usize; 12] =
    [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 511, 512, 513, 4096 + 1, 65536 - 1, 65536 + 33, 200_001];

/// The tested lengths. `tools/cross.sh` limits them in an emulator, where long ones take too long.
fn lengths() -> impl Iterator<Item = usize> {
    let longest = std::env::var("LRCORE_TEST_LONGEST");
    let longest = longest.map_or(usize::MAX, |text| text.parse().expect("a number of elements"));
    LENGTHS.into_iter().filter(move |&len| len <= longest)
}

/// Pseudo-random numbers from −1 to 1 (xorshift).
fn noise(seed: u64, len: usize) -> Vec<f64> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        f64::from(u32::try_from(state >> 32).unwrap_or(0)) / f64::from(u32::MAX) * 2.0 - 1.0
    };
    (0..len).map(|_| next()).collect()
}

fn values_for(names: &[&str]) -> Vec<f64> {
    let value = |name: &&str| match *name {
        "lr" => 0.01,
        "beta1" | "momentum" => 0.9,
        "beta2" => 0.999,
        "alpha" => 0.99,
        "eps" => 1e-8,
        _ => 0.1,
    };
    names.iter().map(value).collect()
}

/// Weight and states.
type Arrays<F> = (Vec<F>, Vec<Vec<F>>);

struct Naive<'a, F> {
    values: &'a [f64],
    weight: &'a [F],
    grad: &'a [F],
    stages: Stages,
}

impl<F: Real> Visitor for Naive<'_, F> {
    type Output = Arrays<F>;

    fn visit<const N: usize, O: Optimizer<N>>(self) -> Arrays<F> {
        let optimizer = O::from_values(self.values).expect("one value for each name");
        let mut weight = self.weight.to_vec();
        let mut states = optimizer.initial().map(|initial| vec![F::of(initial); weight.len()]);
        for t in 1..=STEPS {
            let rule = optimizer.at::<F>(t);
            for i in 0..weight.len() {
                let mut grad = self.grad[i];
                let Stages { maximize, decay, decay_rate, .. } = self.stages;
                if maximize {
                    grad = -grad;
                }
                match decay {
                    Decay::Coupled if decay_rate != 0.0 => grad = grad + F::of(decay_rate) * weight[i],
                    Decay::Decoupled => weight[i] = weight[i] * F::of(1.0 - decay_rate),
                    _ => {}
                }
                let (after, state) = rule.apply(weight[i], grad, std::array::from_fn(|k| states[k][i]));
                weight[i] = after;
                for (array, value) in states.iter_mut().zip(rule.flush(state)) {
                    array[i] = value;
                }
            }
        }
        (weight, states.to_vec())
    }
}

fn engine<F: Real + Native>(
    name: &str,
    values: &[f64],
    tensors: &[(Vec<F>, Vec<F>)],
    stages: Stages,
) -> Vec<Arrays<F>> {
    let update = create(name, values).expect("a registered rule");
    let initial = update.initial();
    let start = |(weight, _): &(Vec<F>, Vec<F>)| {
        (weight.clone(), initial.iter().map(|&value| vec![F::of(value); weight.len()]).collect())
    };
    let mut arrays: Vec<Arrays<F>> = tensors.iter().map(start).collect();
    for t in 1..=STEPS {
        let mut batch = Batch::default();
        let spec = TensorSpec { dtype: F::DTYPE, states: initial.len(), average: false, zero_grads: false };
        let kernel = batch.add_kernel(spec);
        for (id, ((weight, states), (_, grad))) in arrays.iter_mut().zip(tensors).enumerate() {
            let tensor = match states.as_mut_slice() {
                [] => Tensor::from_slices(weight, grad, []),
                [a] => Tensor::from_slices(weight, grad, [a]),
                [a, b] => Tensor::from_slices(weight, grad, [a, b]),
                [a, b, c] => Tensor::from_slices(weight, grad, [a, b, c]),
                [a, b, c, d] => Tensor::from_slices(weight, grad, [a, b, c, d]),
                more => panic!("{} states", more.len()),
            };
            batch.push(tensor, kernel, id);
        }
        batch.run(&[update.at(t, F::DTYPE, stages).expect("the numbers fit")], None);
    }
    arrays
}

/// The bits of every number, weights first. Sign and payload of NaN are not specified, so all NaN are one.
fn bits<F: Real>((weight, states): &Arrays<F>) -> Vec<u64> {
    // `f64` holds every number exactly.
    let of = |number: &F| if number.wide().is_nan() { f64::NAN } else { number.wide() }.to_bits();
    weight.iter().chain(states.iter().flatten()).map(of).collect()
}

fn compare<F: Real + Native>() {
    let dtype = F::DTYPE;
    // In debug builds the long ones take too long.
    let lengths = lengths().filter(|&len| !cfg!(debug_assertions) || len <= 4097);
    let of = |values: Vec<f64>| values.into_iter().map(F::of).collect::<Vec<F>>();
    let tensors: Vec<(Vec<F>, Vec<F>)> =
        lengths.map(|len| (of(noise(len as u64, len)), of(noise(!(len as u64), len)))).collect();
    let coupled = Stages { maximize: true, decay: Decay::Coupled, decay_rate: 0.1, ..Stages::NONE };
    let decoupled = Stages { decay: Decay::Decoupled, decay_rate: 0.001, ..Stages::NONE };
    for name in rules::NAMES {
        let names = signature(name).map_or(&[][..], |signature| signature.hyperparameters);
        let values = values_for(names);
        for stages in [Stages::NONE, coupled, decoupled] {
            let naive: Vec<_> = tensors
                .iter()
                .map(|(weight, grad)| rules::find(name, Naive { values: &values, weight, grad, stages }))
                .map(|arrays| bits(&arrays.expect("a registered rule")))
                .collect();
            for level in Level::available() {
                for threads in [1, 2, 5] {
                    assert!(simd::set(level) && parallel::set_num_threads(threads));
                    let arrays: Vec<_> = engine(name, &values, &tensors, stages).iter().map(bits).collect();
                    assert!(arrays == naive, "{name} {dtype:?} {stages:?} at {level:?} on {threads} threads");
                }
            }
        }
    }
}

// One test, since level and thread count are global.
#[test]
fn the_engine_is_bitwise_equal_to_a_naive_loop() {
    compare::<f32>();
    compare::<f64>();
}

const PLAIN: TensorSpec = TensorSpec { dtype: Dtype::F32, states: 0, average: false, zero_grads: false };

#[test]
#[should_panic(expected = "left == right")]
fn a_tensor_of_another_format_is_refused() {
    let mut batch = Batch::default();
    let kernel = batch.add_kernel(TensorSpec { dtype: Dtype::F64, ..PLAIN });
    batch.push(Tensor::from_slices(&mut [1.0_f32], &[1.0], []), kernel, 0);
}

#[test]
#[should_panic(expected = "supports")]
fn a_kernel_that_requires_more_than_its_tensors_have_is_refused() {
    let update = create("sgd", &[0.1]).expect("a registered rule");
    let (mut weight, grad) = ([1.0_f32], [1.0]);
    let mut batch = Batch::default();
    let kernel = batch.add_kernel(PLAIN);
    batch.push(Tensor::from_slices(&mut weight, &grad, []), kernel, 0);
    let stages = Stages { zero_grads: true, ..Stages::NONE };
    batch.run(&[update.at(1, Dtype::F32, stages).expect("the numbers fit")], None);
}

#[test]
fn samples_of_all_phases_partition_the_gradients() {
    let update = create("sgd", &[0.1]).expect("a registered rule");
    let kernels = [update.at(1, Dtype::F32, Stages::NONE).expect("the numbers fit")];
    // Integers: their sums are exact in any order.
    let grads: Vec<Vec<f32>> =
        lengths().map(|len| [0.0, 1.0, 2.0, 3.0, 4.0].into_iter().cycle().take(len).collect()).collect();
    let mut weights = grads.clone();
    let mut batch = Batch::default();
    let kernel = batch.add_kernel(PLAIN);
    // Ids need not be consecutive.
    for (id, (weight, grad)) in weights.iter_mut().zip(&grads).enumerate() {
        batch.push(Tensor::from_slices(weight, grad, []), kernel, 3 * id);
    }
    let expected: f32 = grads.iter().flatten().map(|grad| grad * grad).sum();
    for stride in [1, 2, 7, 100] {
        let mut sum = 0.0;
        for phase in 10..10 + stride {
            let sample = Sample { stride: NonZeroUsize::new(stride).expect("not 0"), phase };
            if phase % 2 == 0 {
                batch.run(&kernels, Some(sample));
            } else {
                batch.run_with_stats(&kernels, Some(sample));
            }
            sum += batch.sampled_squares(sample);
        }
        assert_eq!(sum.to_bits(), f64::from(expected).to_bits(), "stride {stride}");
    }
}

#[test]
fn unknown_rules_and_wrong_numbers_of_hyperparameters_create_nothing() {
    assert!(create("adam", &[0.1]).is_none());
    assert!(create("no such rule", &[0.1]).is_none());
}
