//! Threads: how many, who does what, and when they sleep. Nothing else in the crate knows that they exist.
//!
//! A step is one fork-join. The caller takes part, chunks are claimed and not assigned, and the caller waits at the end for
//! those threads alone that have entered the job, so one that wakes up late costs nothing. Between steps the threads spin
//! for a moment, then park. A pool belongs to a process: a forked child makes its own.

mod claims;
mod gate;
mod pool;
mod sync;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::OnceLock;
use std::thread;

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
const SHARE_WITH_PARKED: usize = 192 << 10;
/// The least and the most elements to a chunk.
const CHUNK: (usize, usize) = (4 << 10, 64 << 10);
/// Chunks to a thread, where the limits allow it: few enough to cost nothing, enough to even out the threads.
const CHUNKS_A_THREAD: usize = 4;

/// How many elements to put into a chunk.
pub(super) fn chunk_len(elements: usize) -> usize {
    let even = elements / (num_threads() * CHUNKS_A_THREAD);
    even.clamp(CHUNK.0, CHUNK.1).next_multiple_of(super::LANES)
}

/// Calls `work` once for each index below `chunks`, on several threads if that many elements are worth it.
pub(super) fn for_each(chunks: usize, elements: usize, work: &(dyn Fn(usize) + Sync)) {
    let threads = num_threads().min(chunks);
    let wake = if elements < SHARE_WITH_PARKED { Wake::Nobody } else { Wake::All };
    if threads < 2 || elements < SHARE_WITH_SPINNING || !pool::current().run(chunks, threads, wake, work) {
        (0..chunks).for_each(work);
    }
}
