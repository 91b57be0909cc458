//! The protocol of the pool under a model checker, [loom](https://docs.rs/loom): every interleaving of a leader and its helpers.
//! Weakening an ordering makes a test fail.
//!
//! `RUSTFLAGS="--cfg loom" cargo test --release --lib loom`

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;

use super::claims::Claims;
use super::gate::Gate;
use super::sync::{AtomicU64, Ordering};

/// The shared part of a pool. The job is plain memory, which the model checker watches for races.
struct Shared {
    gate: Gate,
    claims: Claims,
    job: UnsafeCell<Option<u64>>,
    /// How often each chunk was run, one byte per chunk.
    done: AtomicU64,
}

const CHUNKS: usize = 2;

impl Shared {
    fn new() -> Self {
        Self { gate: Gate::new(), claims: Claims::new(3), job: UnsafeCell::new(None), done: AtomicU64::new(0) }
    }

    fn work(&self, participant: usize, participants: usize) {
        while let Some(chunk) = self.claims.next(participant, participants) {
            // SAFETY: the leader writes the job only while no helper is inside; the model checks this.
            let job = self.job.with(|job| unsafe { *job }).expect("a job is set while the gate is open");
            self.done.fetch_add(job << (8 * chunk), Ordering::Relaxed);
        }
    }

    fn lead(&self, job: u64, participants: usize) {
        self.claims.deal(CHUNKS, participants);
        // SAFETY: the gate is closed and empty, so no helper reads the job; the model checks this.
        self.job.with_mut(|slot| unsafe { *slot = Some(job) });
        self.gate.open(participants);
        self.work(0, participants);
        self.gate.close();
        while !self.gate.is_empty() {
            thread::yield_now();
        }
        // SAFETY: as above.
        self.job.with_mut(|slot| unsafe { *slot = None });
    }

    /// A helper that tries to enter `visits` times, early or late.
    fn help(&self, helper: usize, participants: usize, visits: usize) {
        let mut last = 0;
        for _ in 0..visits {
            if self.gate.is_open_to(helper, last) && self.gate.enter(helper, &mut last) {
                self.work(helper, participants);
                self.gate.leave();
            } else {
                thread::yield_now();
            }
        }
    }
}

fn check(helpers: usize, jobs: u64, preemptions: usize) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(preemptions);
    model.check(move || {
        let shared = Arc::new(Shared::new());
        let threads: Vec<_> = (1..=helpers)
            .map(|helper| {
                let shared = shared.clone();
                thread::spawn(move || shared.help(helper, helpers + 1, 2))
            })
            .collect();
        let mut expected = 0;
        for job in 1..=jobs {
            shared.lead(job, helpers + 1);
            expected += job * 0x01_01;
            // The leader sees every chunk, once.
            assert_eq!(shared.done.load(Ordering::Relaxed), expected);
        }
        for thread in threads {
            assert!(thread.join().is_ok());
        }
    });
}

#[test]
fn loom_one_helper_two_jobs() {
    check(1, 2, 3);
}

#[test]
fn loom_two_helpers_one_job() {
    check(2, 1, 2);
}
