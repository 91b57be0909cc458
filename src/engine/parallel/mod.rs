//! Threads: how many, who does what, and when they sleep. Nothing else in the crate knows that they exist.
//!
//! A step is one fork-join. The caller takes part, chunks are claimed and not assigned, and the caller waits at the end for
//! those threads alone that have entered the job, so one that wakes up late costs nothing. Between steps the threads spin
//! for a moment, then park. A pool belongs to a process: a forked child makes its own.

mod claims;
mod gate;
#[cfg(all(test, loom))]
mod model;
mod placement;
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

/// The number of threads that steps use, 0 before it is first asked for.
static THREADS: AtomicUsize = AtomicUsize::new(0);

/// How many threads a step uses at most, its caller included: the number of cores that the process may use, by its affinity and
/// its control group's quota, unless [`set_num_threads`] chose another.
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

/// The number of cores that the process could use when it was first asked for.
#[must_use]
pub fn cores() -> usize {
    static CORES: OnceLock<usize> = OnceLock::new();
    *CORES.get_or_init(|| thread::available_parallelism().map_or(1, usize::from).min(MAX_THREADS))
}

/// Uses this many threads from the next step on. False, and nothing changed, outside 1 to [`MAX_THREADS`].
#[must_use]
pub fn set_num_threads(threads: usize) -> bool {
    let allowed = (1..=MAX_THREADS).contains(&threads);
    if allowed {
        THREADS.store(threads, Ordering::Relaxed);
    }
    allowed
}

/// A step of fewer elements is not worth sharing even with threads that spin.
const SHARE_WITH_SPINNING: usize = 8 << 10;
/// A step of fewer elements is not worth waking threads for.
const SHARE_WITH_PARKED: usize = 512 << 10;
/// Steps that follow each other within this time wake threads when they have moved so many elements: from then on threads
/// spin, and help with steps that are not worth waking for.
const SUCCESSION: (Duration, usize) = (Duration::from_micros(400), 1 << 20);
/// The least and the most elements to a chunk.
const CHUNK: (usize, usize) = (4 << 10, 64 << 10);
/// Chunks to a thread, where the limits allow it: few enough to cost nothing, enough to even out the threads.
const CHUNKS_A_THREAD: usize = 4;

/// Calls `work` with ranges that together are all of `elements`, on several threads if that many are worth it, else once.
/// Ranges begin at multiples of `BLOCK`.
pub(super) fn share(elements: usize, work: &(dyn Fn(Range<usize>) + Sync)) {
    let threads = num_threads();
    if threads < 2 || elements < SHARE_WITH_SPINNING {
        return work(0..elements);
    }
    let wake = if elements >= SHARE_WITH_PARKED {
        Wake::All
    } else if pool::anyone_spins() {
        Wake::Nobody
    } else if in_succession(elements) {
        Wake::All
    } else {
        return work(0..elements);
    };
    let even = elements / (threads * CHUNKS_A_THREAD);
    let chunk = even.clamp(CHUNK.0, CHUNK.1).next_multiple_of(super::BLOCK);
    let chunks = elements.div_ceil(chunk);
    let piece = |index: usize| work(index * chunk..elements.min((index + 1) * chunk));
    if !pool::current().run(chunks, threads.min(chunks), wake, &piece) {
        work(0..elements);
    }
}

/// Whether steps of this thread, which nobody helps with, follow each other closely and have moved many elements by now.
fn in_succession(elements: usize) -> bool {
    thread_local! {
        static SUCCESSIVE: Cell<Option<(Instant, usize)>> = const { Cell::new(None) };
    }
    let now = Instant::now();
    let moved = match SUCCESSIVE.get() {
        Some((last, moved)) if now.duration_since(last) < SUCCESSION.0 => moved + elements,
        _ => elements,
    };
    let enough = moved >= SUCCESSION.1;
    SUCCESSIVE.set(if enough { None } else { Some((now, moved)) });
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
    fn every_chunk_is_done_once() {
        for threads in [2, 3, 7, 16] {
            for chunks in [1, 2, 3, 15, 16, 17, 1000] {
                for wake in [Wake::Nobody, Wake::All] {
                    assert_eq!(counts(chunks, threads, wake), vec![1; chunks]);
                }
            }
        }
    }

    #[test]
    fn a_step_of_any_size_is_shared_out_whole() {
        for elements in [1, SHARE_WITH_SPINNING - 1, SHARE_WITH_SPINNING, SHARE_WITH_PARKED - 33, SHARE_WITH_PARKED + 1]
        {
            // Often enough to be a succession, in which threads are woken and then help.
            for _ in 0..2 * SUCCESSION.1.div_ceil(elements).min(200) {
                let moved = AtomicUsize::new(0);
                share(elements, &|range| {
                    assert!(range.start.is_multiple_of(crate::engine::BLOCK) && range.end <= elements);
                    moved.fetch_add(range.len(), Ordering::Relaxed);
                });
                assert_eq!(moved.into_inner(), elements);
            }
        }
    }

    #[test]
    fn several_leaders_at_once_each_get_their_work_done() {
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
    fn a_job_inside_a_job_is_done_by_its_caller() {
        let inner = |_: usize| assert_eq!(counts(5, 2, Wake::All), vec![1; 5]);
        if !pool::current().run(4, 2, Wake::All, &inner) {
            (0..4).for_each(inner);
        }
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_goes_on() {
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
