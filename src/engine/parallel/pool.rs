//! The pool: one job at a time, led by its caller.

use std::cell::UnsafeCell;
use std::hint;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use super::claims::Claims;
use super::gate::Gate;
use super::placement::{Narrowing, Placement};
use crate::engine::float_mode::DefaultMode;

/// The most threads that a step can use.
pub const MAX_THREADS: usize = 256;

/// How long an idle thread watches for the next job before it parks. Steps that follow each other sooner find it awake.
const SPIN: Duration = Duration::from_micros(100);

/// Whether a job is worth waking parked threads for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Wake {
    Nobody,
    All,
}

pub(super) struct Pool {
    process: u32,
    /// Held by the caller that leads the present job. A second caller works alone meanwhile.
    led: AtomicBool,
    gate: Gate,
    claims: Claims,
    job: UnsafeCell<Option<PoolJob>>,
    /// Helper 0 is the caller, and has no thread.
    helpers: [Helper; MAX_THREADS],
    /// Whether idle threads spin: not when there are more of them than cores, where they would be in the way.
    spins: AtomicBool,
    /// How many threads are not parked.
    awake: AtomicUsize,
}

#[derive(Default)]
struct Helper {
    thread: OnceLock<Thread>,
    placement: OnceLock<Placement>,
    parked: AtomicBool,
    /// What a waker did to the thread's affinity. It is held while `parked` goes from true to false, so that a thread knows
    /// of what was done to it, and nothing is done to one that is awake.
    narrowing: Mutex<Option<Narrowing>>,
}

#[derive(Clone, Copy)]
struct PoolJob {
    work: *const (dyn Fn(usize) + Sync + 'static),
    participants: usize,
    wake: Wake,
    failed: *const AtomicBool,
}

// SAFETY: `job` is written by the leader alone while the gate is shut and empty, and read by those inside; the pointers in it
// are valid until the gate is empty again. The rest is atomic.
unsafe impl Sync for Pool {}

/// The pool of this process, or in a forked child that of its parent.
static POOL: AtomicPtr<Pool> = AtomicPtr::new(ptr::null_mut());

/// Whether a thread may be there to help without being woken. A guess, since to know for sure whether the pool is that of this
/// process takes a system call.
pub(super) fn anyone_spins() -> bool {
    // SAFETY: a pool is never freed.
    unsafe { POOL.load(Ordering::Acquire).as_ref() }.is_some_and(|pool| pool.awake.load(Ordering::Relaxed) > 0)
}

/// The pool of this process.
pub(super) fn current() -> &'static Pool {
    let process = process::id();
    let pool = POOL.load(Ordering::Acquire);
    // SAFETY: a pool is never freed.
    if let Some(pool) = unsafe { pool.as_ref() }
        && pool.process == process
    {
        return pool;
    }
    // The first use, or the first in a forked child, where the parent's threads don't exist: its pool is left as it is.
    let new = Box::into_raw(Box::new(Pool::new(process)));
    match POOL.compare_exchange(pool, new, Ordering::AcqRel, Ordering::Acquire) {
        // SAFETY: it was just made, and is never freed.
        Ok(_) => unsafe { &*new },
        Err(other) => {
            // SAFETY: it was just made and nobody else has seen it.
            drop(unsafe { Box::from_raw(new) });
            // SAFETY: another thread of this process installed it, and it is never freed.
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

    /// Calls `work` once for each index below `chunks` and returns true, or returns false at once and does nothing if
    /// another thread leads a job or no thread can be had.
    ///
    /// # Panics
    /// If `work` does, when all threads have left the job.
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
        // SAFETY: only the lifetime changes; the pointer is not used after `Lead` is dropped, below.
        let work = unsafe { std::mem::transmute::<&(dyn Fn(usize) + Sync), &'static (dyn Fn(usize) + Sync)>(work) };
        let job = PoolJob { work, participants, wake, failed: &raw const failed };
        // SAFETY: this caller leads and the gate is shut and empty, so nobody else reads or writes the job.
        unsafe { *self.job.get() = Some(job) };
        self.gate.open(participants);
        let lead = Lead(self);
        self.participate(0, job);
        drop(lead);
        assert!(!failed.load(Ordering::Relaxed), "a thread of the pool panicked");
        true
    }

    /// Starts threads until there are helpers 1 to `participants` − 1, or no more can be had; returns how many take part.
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

    /// Wakes this participant's two helpers, who wake theirs, and works until no chunk is left.
    fn participate(&self, participant: usize, job: PoolJob) {
        if job.wake == Wake::All {
            for helper in [2 * participant + 1, 2 * participant + 2] {
                if helper < job.participants {
                    self.helpers[helper].wake();
                }
            }
        }
        while let Some(chunk) = self.claims.next(participant, job.participants) {
            // SAFETY: the work is valid until the gate is empty, and this participant is inside or leads.
            unsafe { (*job.work)(chunk) };
        }
    }

    /// What a thread of the pool does all its life.
    fn help(&self, helper: usize) {
        // It was started in the mode that its first leader was in.
        let _mode = DefaultMode::enter();
        self.helpers[helper].placement.get_or_init(Placement::of_this_thread);
        self.awake.fetch_add(1, Ordering::Relaxed);
        let mut last = 0;
        loop {
            if !self.gate.enter(helper, &mut last) {
                self.idle(helper, last);
                continue;
            }
            // SAFETY: this thread is inside, so the job is set and nobody writes it.
            if let Some(job) = unsafe { *self.job.get() }
                && catch_unwind(AssertUnwindSafe(|| self.participate(helper, job))).is_err()
            {
                // SAFETY: the flag is valid until the gate is empty.
                unsafe { (*job.failed).store(true, Ordering::Relaxed) };
            }
            self.gate.leave();
        }
    }

    /// Returns when there may be a job: spins for a while, then parks.
    fn idle(&self, helper: usize, last: u64) {
        let since = Instant::now();
        while self.spins.load(Ordering::Relaxed) && since.elapsed() < SPIN {
            for _ in 0..32 {
                if self.gate.calls(helper, last) {
                    return;
                }
                hint::spin_loop();
            }
        }
        // A leader that misses the flag leaves this thread parked until the next job that wakes: it costs nothing else.
        self.helpers[helper].parked.store(true, Ordering::SeqCst);
        self.awake.fetch_sub(1, Ordering::Relaxed);
        if !self.gate.calls(helper, last) {
            thread::park();
        }
        self.awake.fetch_add(1, Ordering::Relaxed);
        self.helpers[helper].awakes();
    }
}

impl Helper {
    fn wake(&self) {
        if !self.parked.load(Ordering::SeqCst) {
            return;
        }
        let mut narrowing = self.narrowing.lock().unwrap_or_else(PoisonError::into_inner);
        if self.parked.swap(false, Ordering::SeqCst)
            && let Some(thread) = self.thread.get()
        {
            *narrowing = self.placement.get().and_then(Placement::narrow);
            drop(narrowing);
            thread.unpark();
        }
    }

    /// The thread is no longer parked, whoever woke it.
    fn awakes(&self) {
        let mut narrowing = self.narrowing.lock().unwrap_or_else(PoisonError::into_inner);
        self.parked.store(false, Ordering::SeqCst);
        if let Some((narrowing, placement)) = narrowing.take().zip(self.placement.get()) {
            placement.widen(&narrowing);
        }
    }
}

/// The leadership of a job that is under way. It ends, even by a panic, when everyone has left.
struct Lead(&'static Pool);

impl Drop for Lead {
    fn drop(&mut self) {
        self.0.gate.close();
        let mut waits = 0_u32;
        while !self.0.gate.is_empty() {
            waits += 1;
            if waits < 1 << 12 { hint::spin_loop() } else { thread::yield_now() }
        }
        // SAFETY: this caller still leads, and the gate is shut and empty.
        unsafe { *self.0.job.get() = None };
        self.0.led.store(false, Ordering::Release);
    }
}
