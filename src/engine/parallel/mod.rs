//! Threads: a fork-join over chunks, [`for_each_chunk`], and how many threads take part in it.
//!
//! ```text
//! fewer than 8 Ki elements                    the caller alone
//! 512 Ki and more                             parked helpers are woken
//! between, a helper spins                     shared with those that spin
//! between, none spins                         the caller alone; a succession of such steps wakes helpers
//! ```
//!
//! The caller leads and takes part. Helpers [claim](claims) chunks, and the caller waits at the [gate] only for helpers that have
//! entered, so a late one costs nothing. Idle helpers spin for 100 µs, then park. `ARCHITECTURE.md` has the measurements behind
//! the limits.

mod affinity;
mod claims;
mod gate;
#[cfg(all(test, loom))]
mod model;
mod pool;
mod sync;

use std::cell::Cell;
use std::ops::Range;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

pub use pool::MAX_THREADS;
use pool::Wake;

/// The number of threads that steps use, 0 before the first call of [`num_threads`].
static THREADS: AtomicUsize = AtomicUsize::new(0);

/// The maximum number of threads of a step, including its caller: the number of cores that affinity and control-group quota allow
/// the process, unless [`set_num_threads`] chose another.
#[must_use]
pub fn num_threads() -> usize {
    match THREADS.load(Ordering::Relaxed) {
        0 => {
            let cores = cores();
            THREADS.store(cores, Ordering::Relaxed);
            cores
        }
        threads => threads,
    }
}

/// The number of cores that the process may use, determined once.
#[must_use]
pub fn cores() -> usize {
    static CORES: OnceLock<usize> = OnceLock::new();
    *CORES.get_or_init(|| thread::available_parallelism().map_or(1, usize::from).min(MAX_THREADS))
}

/// Uses this many threads from the next step on. Returns false, and changes nothing, outside of 1 to [`MAX_THREADS`].
#[must_use]
pub fn set_num_threads(threads: usize) -> bool {
    let allowed = (1..=MAX_THREADS).contains(&threads);
    if allowed {
        THREADS.store(threads, Ordering::Relaxed);
    }
    allowed
}

/// Steps of fewer elements are not shared, even with helpers that spin.
const SHARE_WITH_SPINNING: usize = 8 << 10;
/// Steps of fewer elements wake no helpers, unless they are in a succession.
const SHARE_WITH_PARKED: usize = 512 << 10;
/// A succession: steps at most this time apart, with this many elements together. It wakes helpers, which then spin and help with
/// the steps that follow.
const SUCCESSION: (Duration, usize) = (Duration::from_micros(400), 1 << 20);
/// The minimum and maximum number of elements of a chunk.
const CHUNK: (usize, usize) = (4 << 10, 64 << 10);
/// Chunks per thread, within the limits of [`CHUNK`]: few enough to cost nothing, enough to balance the threads.
const CHUNKS_A_THREAD: usize = 4;

/// Calls `work` with ranges that partition `elements`, on several threads if there are enough elements, else once. Ranges begin
/// at multiples of [`BLOCK`](super::BLOCK).
pub(super) fn for_each_chunk(elements: usize, work: &(dyn Fn(Range<usize>) + Sync)) {
    let threads = num_threads();
    if threads < 2 || elements < SHARE_WITH_SPINNING {
        return work(0..elements);
    }
    let wake = if elements >= SHARE_WITH_PARKED {
        Wake::All
    } else if pool::anyone_spins() {
        Wake::None
    } else if in_succession(elements) {
        Wake::All
    } else {
        return work(0..elements);
    };
    let even = elements / (threads * CHUNKS_A_THREAD);
    let chunk = even.clamp(CHUNK.0, CHUNK.1).next_multiple_of(super::BLOCK);
    let chunks = elements.div_ceil(chunk);
    let run_chunk = |index: usize| work(index * chunk..elements.min((index + 1) * chunk));
    if !pool::current().run(chunks, threads.min(chunks), wake, &run_chunk) {
        work(0..elements);
    }
}

/// Whether steps of this thread, which no helper takes part in, are a [`SUCCESSION`] by now.
fn in_succession(elements: usize) -> bool {
    thread_local! {
        static SUCCESSIVE: Cell<Option<(Instant, usize)>> = const { Cell::new(None) };
    }
    let now = Instant::now();
    let total = match SUCCESSIVE.get() {
        Some((last, total)) if now.duration_since(last) < SUCCESSION.0 => total + elements,
        _ => elements,
    };
    let enough = total >= SUCCESSION.1;
    SUCCESSIVE.set(if enough { None } else { Some((now, total)) });
    enough
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::panic::catch_unwind;
    use std::sync::atomic::AtomicU32;

    use super::*;

    fn counts(chunks: usize, threads: usize, wake: Wake) -> Vec<u32> {
        let counts: Vec<AtomicU32> = (0..chunks).map(|_| AtomicU32::new(0)).collect();
        let work = |chunk: usize| {
            counts[chunk].fetch_add(1, Ordering::Relaxed);
        };
        if !pool::current().run(chunks, threads, wake, &work) {
            (0..chunks).for_each(work);
        }
        counts.into_iter().map(AtomicU32::into_inner).collect()
    }

    #[test]
    fn every_chunk_runs_once() {
        for threads in [2, 3, 7, 16] {
            for chunks in [1, 2, 3, 15, 16, 17, 1000] {
                for wake in [Wake::None, Wake::All] {
                    assert_eq!(counts(chunks, threads, wake), vec![1; chunks]);
                }
            }
        }
    }

    #[test]
    fn chunks_partition_steps_of_any_size() {
        for elements in [1, SHARE_WITH_SPINNING - 1, SHARE_WITH_SPINNING, SHARE_WITH_PARKED - 33, SHARE_WITH_PARKED + 1]
        {
            // Enough of them for a succession, which wakes helpers.
            for _ in 0..2 * SUCCESSION.1.div_ceil(elements).min(200) {
                let total = AtomicUsize::new(0);
                for_each_chunk(elements, &|range| {
                    assert!(range.start.is_multiple_of(crate::engine::BLOCK) && range.end <= elements);
                    total.fetch_add(range.len(), Ordering::Relaxed);
                });
                assert_eq!(total.into_inner(), elements);
            }
        }
    }

    #[test]
    fn concurrent_leaders_each_run_all_chunks() {
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..500 {
                        assert_eq!(counts(9, 3, Wake::All), vec![1; 9]);
                    }
                });
            }
        });
    }

    #[test]
    fn a_nested_job_runs_in_its_caller() {
        let inner = |_: usize| assert_eq!(counts(5, 2, Wake::All), vec![1; 5]);
        if !pool::current().run(4, 2, Wake::All, &inner) {
            (0..4).for_each(inner);
        }
    }

    #[test]
    fn a_panic_reaches_the_caller_and_leaves_the_pool_usable() {
        let panics = catch_unwind(|| {
            let work = |chunk: usize| assert!(chunk != 7, "chunk 7");
            if !pool::current().run(16, 4, Wake::All, &work) {
                (0..16).for_each(work);
            }
        });
        assert!(panics.is_err());
        assert_eq!(counts(100, 4, Wake::All), vec![1; 100]);
    }

    #[test]
    fn thread_counts_out_of_range_change_nothing() {
        let before = num_threads();
        assert!(!set_num_threads(0));
        assert!(!set_num_threads(MAX_THREADS + 1));
        assert_eq!(num_threads(), before);
    }
}
