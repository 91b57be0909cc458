//! The engine without an interpreter: every rule × dtype × length × instruction set, on one thread.
//!
//! `cargo bench -- adam/F32` measures a part, and `cargo bench --features probes` the memory-bandwidth bounds too. Criterion compares
//! with the previous run, or with another by `--save-baseline` and `--baseline`.

use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput};
use lrcore::engine::simd::{self, Level};
use lrcore::engine::{Batch, Native, Stages, Tensor, create, parallel, signature};
use lrcore::rule::Real;
use lrcore::rules;

/// Lengths whose arrays fit into L1, into L2, and into neither.
const LENGTHS: [(usize, &str); 3] = [(1 << 10, "1Ki"), (32 << 10, "32Ki"), (4 << 20, "4Mi")];
#[cfg(feature = "probes")]
const PROBES: &[&str] = &rules::bandwidth::NAMES;
#[cfg(not(feature = "probes"))]
const PROBES: &[&str] = &[];
/// The measured step; bias corrections of the first ones are extreme.
const STEP: u64 = 100;

fn values_for(names: &[&str]) -> Vec<f64> {
    let value = |name: &&str| match *name {
        "beta1" | "momentum" => 0.9,
        "beta2" => 0.999,
        "alpha" => 0.99,
        "eps" => 1e-8,
        "lr" => 1e-3,
        _ => 0.0,
    };
    names.iter().map(value).collect()
}

/// Measures a rule for one dtype and length, at every level.
fn bench<F: Real + Native>(criterion: &mut Criterion, name: &str, len: usize, label: &str) {
    let signature = signature(name).expect("a registered name");
    let update = create(name, &values_for(signature.hyperparameters)).expect("a value for each name");
    let mut weight = vec![F::ONE; len];
    let grad = vec![F::of(1e-3); len];
    let mut states: Vec<Vec<F>> = signature.state.iter().map(|_| vec![F::of(1e-3); len]).collect();
    let tensor = match states.as_mut_slice() {
        [] => Tensor::from_slices(&mut weight, &grad, []),
        [a] => Tensor::from_slices(&mut weight, &grad, [a]),
        [a, b] => Tensor::from_slices(&mut weight, &grad, [a, b]),
        [a, b, c] => Tensor::from_slices(&mut weight, &grad, [a, b, c]),
        more => panic!("{} states", more.len()),
    };
    let mut batch = Batch::default();
    let kernel = batch.add_kernel(tensor.spec());
    batch.push(tensor, kernel, 0);
    let kernels = [update.at(STEP, F::DTYPE, Stages::NONE).expect("the numbers fit")];

    let mut group = criterion.benchmark_group(format!("{name}/{:?}/{label}", F::DTYPE));
    group.throughput(Throughput::Elements(len as u64));
    for level in Level::available() {
        group.bench_function(BenchmarkId::from_parameter(level.name()), |bencher| {
            assert!(simd::set(level));
            bencher.iter(|| batch.run(&kernels, None));
        });
    }
    group.finish();
}

fn main() {
    assert!(parallel::set_num_threads(1));
    let mut criterion = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(100))
        .measurement_time(Duration::from_millis(400))
        .configure_from_args();
    for name in rules::NAMES.iter().chain(PROBES) {
        for (len, label) in LENGTHS {
            bench::<f32>(&mut criterion, name, len, label);
            bench::<f64>(&mut criterion, name, len, label);
        }
    }
    criterion.final_summary();
}
