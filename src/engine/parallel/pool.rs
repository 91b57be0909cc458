//! The thread pool of a process: one job at a time, led by its caller.
//!
//! ```text
//! run      take the lead (or return false: another caller has it); deal the chunks; open the gate
//!          wake two helpers, which wake two each; run chunks until none is left; close the gate; wait until it is empty
//! helper   loop: enter the gate and run chunks, or spin for 100 µs and park
//! ```
//!
//! A pool is never freed. A forked child has none of its parent's threads, so it makes a pool of its own.

use std::cell::UnsafeCell;
use std::hint;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use super::affinity::{Narrowed, ThreadAffinity};
use super::claims::Claims;
use super::gate::Gate;
use crate::engine::float_mode::DefaultMode;

/// The maximum number of threads of a step.
pub const MAX_THREADS: usize = 256;

/// How long an idle helper spins before it parks.
const SPIN: Duration = Duration::from_micros(100);

/// Which parked helpers a job wakes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Wake {
    None,
    All,
}

pub(super) struct Pool {
    process: u32,
    led: AtomicBool,
    gate: Gate,
    claims: Claims,
    job: UnsafeCell<Option<PoolJob>>,
    /// Helper 0 is the leader, and has no thread.
    helpers: [Helper; MAX_THREADS],
    /// Whether idle helpers spin: only if there are at most as many threads as cores.
    spins: AtomicBool,
    /// The number of helpers that are not parked.
    awake: AtomicUsize,
}

#[derive(Default)]
struct Helper {
    thread: OnceLock<Thread>,
    affinity: OnceLock<ThreadAffinity>,
    parked: AtomicBool,
    /// The affinity that a waker has set. Locked while `parked` goes from true to false, so that wakers change the affinity of
    /// parked threads alone, and these restore it.
    narrowed: Mutex<Option<Narrowed>>,
}

#[derive(Clone, Copy)]
struct PoolJob {
    work: *const (dyn Fn(usize) + Sync + 'static),
    participants: usize,
    wake: Wake,
    failed: *const AtomicBool,
}

// SAFETY: the leader writes `job` while the gate is closed and empty, and helpers read it inside; the pointers in it are valid
// until the gate is empty again. The rest is atomic.
unsafe impl Sync for Pool {}

/// The pool of this process, or in a forked child that of its parent.
static POOL: AtomicPtr<Pool> = AtomicPtr::new(ptr::null_mut());

/// Whether helpers are likely to spin. Not certain: whether the pool belongs to this process takes a system call.
pub(super) fn anyone_spins() -> bool {
    // SAFETY: a pool is never freed.
    unsafe { POOL.load(Ordering::Acquire).as_ref() }.is_some_and(|pool| pool.awake.load(Ordering::Relaxed) > 0)
}

pub(super) fn current() -> &'static Pool {
    let process = process::id();
    let pool = POOL.load(Ordering::Acquire);
    // SAFETY: a pool is never freed.
    if let Some(pool) = unsafe { pool.as_ref() }
        && pool.process == process
    {
        return pool;
    }
    // The first use, or the first in a forked child, which leaves its parent's pool as it is.
    let new = Box::into_raw(Box::new(Pool::new(process)));
    match POOL.compare_exchange(pool, new, Ordering::AcqRel, Ordering::Acquire) {
        // SAFETY: it is new, and never freed.
        Ok(_) => unsafe { &*new },
        Err(other) => {
            // SAFETY: it is new, and no other thread has seen it.
            drop(unsafe { Box::from_raw(new) });
            // SAFETY: another thread of this process stored it, and it is never freed.
            unsafe { &*other }
        }
    }
}

impl Pool {
    fn new(process: u32) -> Self {
        Self {
            process,
            led: AtomicBool::new(false),
            gate: Gate::new(),
            claims: Claims::new(MAX_THREADS),
            job: UnsafeCell::new(None),
            helpers: std::array::from_fn(|_| Helper::default()),
            spins: AtomicBool::new(true),
            awake: AtomicUsize::new(0),
        }
    }

    /// Calls `work` once for each index below `chunks` and returns true. Returns false, and calls nothing, if another caller leads a
    /// job.
    ///
    /// # Panics
    /// If `work` does, after all threads have left the job.
    pub(super) fn run(
        &'static self,
        chunks: usize,
        participants: usize,
        wake: Wake,
        work: &(dyn Fn(usize) + Sync),
    ) -> bool {
        if self.led.swap(true, Ordering::Acquire) {
            return false;
        }
        let participants = self.spawn(participants);
        self.spins.store(participants <= super::cores(), Ordering::Relaxed);
        self.claims.deal(chunks, participants);
        let failed = AtomicBool::new(false);
        // SAFETY: only the lifetime changes; the pointer is not used after `LeaderGuard` is dropped, below.
        let work = unsafe { std::mem::transmute::<&(dyn Fn(usize) + Sync), &'static (dyn Fn(usize) + Sync)>(work) };
        let job = PoolJob { work, participants, wake, failed: &raw const failed };
        // SAFETY: this caller leads and the gate is closed and empty, so no other thread accesses the job.
        unsafe { *self.job.get() = Some(job) };
        self.gate.open(participants);
        let guard = LeaderGuard(self);
        self.participate(0, job);
        drop(guard);
        assert!(!failed.load(Ordering::Relaxed), "a thread of the pool panicked");
        true
    }

    /// Starts threads for helpers 1 to `participants` − 1, as far as the system allows; returns the number of participants.
    fn spawn(&'static self, participants: usize) -> usize {
        for (index, helper) in self.helpers.iter().enumerate().take(participants).skip(1) {
            if helper.thread.get().is_none() {
                let thread = thread::Builder::new().name(format!("lrcore-{index}"));
                let Ok(handle) = thread.spawn(move || self.help(index)) else { return index };
                // Only the leader spawns, so the cell is empty.
                let _ = helper.thread.set(handle.thread().clone());
            }
        }
        participants
    }

    fn participate(&self, participant: usize, job: PoolJob) {
        if job.wake == Wake::All {
            for helper in [2 * participant + 1, 2 * participant + 2] {
                if helper < job.participants {
                    self.helpers[helper].wake();
                }
            }
        }
        while let Some(chunk) = self.claims.next(participant, job.participants) {
            // SAFETY: `work` is valid until the gate is empty, and this participant is inside or leads.
            unsafe { (*job.work)(chunk) };
        }
    }

    fn help(&self, helper: usize) {
        // A thread starts in the mode of its parent, the leader.
        let _mode = DefaultMode::enter();
        self.helpers[helper].affinity.get_or_init(ThreadAffinity::of_this_thread);
        self.awake.fetch_add(1, Ordering::Relaxed);
        let mut last = 0;
        loop {
            if !self.gate.enter(helper, &mut last) {
                self.idle(helper, last);
                continue;
            }
            // SAFETY: this thread is inside, so the job is set and not written.
            if let Some(job) = unsafe { *self.job.get() }
                && catch_unwind(AssertUnwindSafe(|| self.participate(helper, job))).is_err()
            {
                // SAFETY: the flag is valid until the gate is empty.
                unsafe { (*job.failed).store(true, Ordering::Relaxed) };
            }
            self.gate.leave();
        }
    }

    fn idle(&self, helper: usize, last: u64) {
        let since = Instant::now();
        while self.spins.load(Ordering::Relaxed) && since.elapsed() < SPIN {
            for _ in 0..32 {
                if self.gate.is_open_to(helper, last) {
                    return;
                }
                hint::spin_loop();
            }
        }
        // A leader that misses the flag leaves this thread parked until the next job that wakes it.
        self.helpers[helper].parked.store(true, Ordering::SeqCst);
        self.awake.fetch_sub(1, Ordering::Relaxed);
        if !self.gate.is_open_to(helper, last) {
            thread::park();
        }
        self.awake.fetch_add(1, Ordering::Relaxed);
        self.helpers[helper].on_wake();
    }
}

impl Helper {
    fn wake(&self) {
        if !self.parked.load(Ordering::SeqCst) {
            return;
        }
        let mut narrowed = self.narrowed.lock().unwrap_or_else(PoisonError::into_inner);
        if self.parked.swap(false, Ordering::SeqCst)
            && let Some(thread) = self.thread.get()
        {
            *narrowed = self.affinity.get().and_then(ThreadAffinity::exclude_caller);
            drop(narrowed);
            thread.unpark();
        }
    }

    /// Runs on the thread when it is no longer parked, for whatever reason.
    fn on_wake(&self) {
        let mut narrowed = self.narrowed.lock().unwrap_or_else(PoisonError::into_inner);
        self.parked.store(false, Ordering::SeqCst);
        if let Some((narrowed, affinity)) = narrowed.take().zip(self.affinity.get()) {
            affinity.restore(&narrowed);
        }
    }
}

/// Ends a job on drop, also after a panic, when all helpers have left.
struct LeaderGuard(&'static Pool);

impl Drop for LeaderGuard {
    fn drop(&mut self) {
        self.0.gate.close();
        let mut waits = 0_u32;
        while !self.0.gate.is_empty() {
            waits += 1;
            if waits < 1 << 12 { hint::spin_loop() } else { thread::yield_now() }
        }
        // SAFETY: this caller still leads, and the gate is closed and empty.
        unsafe { *self.0.job.get() = None };
        self.0.led.store(false, Ordering::Release);
    }
}
