//! Calls in progress, which a fork and the end of the interpreter wait for.
//!
//! * A fork copies memory, and only the calling thread. An optimizer that another thread was stepping would stay in use in the child,
//!   with some of its weights updated. So before a fork, new calls wait and calls in progress are waited for. A call within a call
//!   does not wait, since the outer one is waited for.
//! * At its end, the interpreter ends threads that acquire it by unwinding their stacks, which makes a Rust function abort the process.
//!   So an `atexit` function waits for all calls, and later calls hold the interpreter to their end. When it returns, no other thread
//!   is in a call.
//!
//! A call that runs Python code is waited for [`PATIENCE`] at most, since that code may be waiting for the thread that waits. A call
//! that computes ends, and is waited for as long as it takes.

use std::cell::Cell;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use pyo3::prelude::*;

/// A counter that is accessed only while the GIL is held, so never by two threads at once.
struct GilCounter(AtomicUsize);

impl GilCounter {
    const fn zero() -> Self {
        Self(AtomicUsize::new(0))
    }

    #[inline]
    fn get(&self) -> usize {
        self.0.load(Relaxed)
    }

    #[inline]
    fn set(&self, value: usize) {
        self.0.store(value, Relaxed);
    }

    /// Adds 1 while the result lives.
    #[inline]
    fn increment(&'static self) -> Increment {
        self.set(self.get() + 1);
        Increment(self)
    }
}

struct Increment(&'static GilCounter);

impl Drop for Increment {
    #[inline]
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

/// The number of threads in a call.
static INSIDE: GilCounter = GilCounter::zero();
/// The number of them that compute without the interpreter.
static COMPUTING: GilCounter = GilCounter::zero();
/// The number of threads that wait for a fork before they begin a call.
static WAITING: GilCounter = GilCounter::zero();
/// The number of threads that are about to fork.
static FORKS: GilCounter = GilCounter::zero();
/// 1 if the interpreter is about to end.
static ENDS: GilCounter = GilCounter::zero();
/// 1 if this process was forked during a call of another thread.
static IS_CUT_OFF: GilCounter = GilCounter::zero();

thread_local! {
    /// The number of calls that the thread is in, one within the other.
    static DEPTH: Cell<usize> = const { Cell::new(0) };
}

/// The longest wait for a call that runs Python code.
const PATIENCE: Duration = Duration::from_secs(10);
/// The polling interval of a wait.
const PAUSE: Duration = Duration::from_micros(200);

/// An object in use by a call.
pub(super) struct InUse<T> {
    // Fields are dropped in this order.
    object: T,
    _call: Call,
}

/// A call in progress. It belongs to a thread.
struct Call(PhantomData<*const ()>);

impl<T> InUse<T> {
    /// Begins a call, and takes the object.
    #[inline]
    pub(super) fn begin<E>(py: Python<'_>, take: impl FnOnce() -> Result<T, E>) -> Result<Self, E> {
        let call = Call::begin(py);
        Ok(Self { object: take()?, _call: call })
    }
}

impl<T: Deref> Deref for InUse<T> {
    type Target = T::Target;

    #[inline]
    fn deref(&self) -> &T::Target {
        &self.object
    }
}

impl<T: DerefMut> DerefMut for InUse<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T::Target {
        &mut self.object
    }
}

impl Call {
    #[inline]
    fn begin(py: Python<'_>) -> Self {
        if DEPTH.get() == 0 {
            if FORKS.get() > 0 {
                wait_for_forks(py);
            }
            INSIDE.set(INSIDE.get() + 1);
        }
        DEPTH.set(DEPTH.get() + 1);
        Self(PhantomData)
    }
}

impl Drop for Call {
    #[inline]
    fn drop(&mut self) {
        DEPTH.set(DEPTH.get() - 1);
        if DEPTH.get() == 0 {
            INSIDE.set(INSIDE.get() - 1);
        }
    }
}

#[cold]
fn wait_for_forks(py: Python<'_>) {
    let _waiting = WAITING.increment();
    while FORKS.get() > 0 {
        py.detach(|| thread::sleep(PAUSE));
    }
}

/// Computes without the interpreter, within a call.
pub(super) fn detached<T: Send>(py: Python<'_>, work: impl FnOnce() -> T + Send) -> T {
    if ENDS.get() > 0 {
        return work();
    }
    let _computing = COMPUTING.increment();
    py.detach(work)
}

/// Waits until no other thread is in a call, or Python code in one takes too long.
fn wait_for_calls(py: Python<'_>, others: impl Fn() -> usize) {
    let mut since = Instant::now();
    while others() > 0 && since.elapsed() < PATIENCE {
        if COMPUTING.get() > 0 {
            since = Instant::now();
        }
        py.detach(|| thread::sleep(PAUSE));
    }
}

/// To be called before a fork: waits for calls of other threads, and makes new ones wait.
#[pyfunction]
pub(crate) fn before_fork(py: Python<'_>) {
    FORKS.set(FORKS.get() + 1);
    let own = usize::from(DEPTH.get() > 0);
    // Threads that are about to fork within a call must not wait for each other.
    INSIDE.set(INSIDE.get() - own);
    wait_for_calls(py, || INSIDE.get());
    INSIDE.set(INSIDE.get() + own);
}

/// To be called in the parent after a fork: calls may begin again.
#[pyfunction]
pub(crate) fn after_fork_in_parent() {
    FORKS.set(FORKS.get().saturating_sub(1));
}

/// To be called in the child after a fork, where only the calling thread is left.
#[pyfunction]
pub(crate) fn after_fork_in_child() {
    let own = usize::from(DEPTH.get() > 0);
    if INSIDE.get() > own {
        IS_CUT_OFF.set(1);
    }
    INSIDE.set(own);
    for counter in [&COMPUTING, &WAITING, &FORKS] {
        counter.set(0);
    }
}

/// To be called at the end of the interpreter: waits for calls of other threads, and makes later ones hold the interpreter.
#[pyfunction]
pub(crate) fn at_exit(py: Python<'_>) {
    ENDS.set(1);
    let own = usize::from(DEPTH.get() > 0);
    wait_for_calls(py, || INSIDE.get() - own + WAITING.get());
}

/// Whether this process was forked during a call of another thread.
pub(super) fn is_cut_off() -> bool {
    IS_CUT_OFF.get() > 0
}
