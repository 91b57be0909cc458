//! Calls in progress: a fork and the end of the interpreter wait for them.
//!
//! A fork copies memory and the thread that calls it. An optimizer that another thread was stepping would be in use for ever in the
//! child, with its weights half moved. So before a fork new calls wait, and those in progress are waited for; a call that
//! began within another goes on, since that one is waited for.
//!
//! At its end the interpreter ends threads that ask to have it back, by unwinding their stacks, which Rust does not allow:
//! the process would abort. So what is registered with `atexit` waits for all calls, and keeps those that begin later from
//! giving up the interpreter. When it returns it holds the interpreter, and no other thread is in a call.
//!
//! Nobody waits longer than [`PATIENCE`] for a call that runs Python code, which may be waiting for the waiting thread itself.
//! A call that computes comes to an end, and is waited for as long as that takes.

use std::cell::Cell;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use pyo3::prelude::*;

/// A number or a flag that is read and written by threads which hold the interpreter, and so never by two at once.
struct Held(AtomicUsize);

impl Held {
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

    /// Adds to it while the result lives.
    #[inline]
    fn count(&'static self) -> Counted {
        self.set(self.get() + 1);
        Counted(self)
    }
}

struct Counted(&'static Held);

impl Drop for Counted {
    #[inline]
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

/// How many threads are in a call.
static INSIDE: Held = Held::zero();
/// How many of them compute without the interpreter.
static COMPUTING: Held = Held::zero();
/// How many threads wait for a fork before they begin a call.
static WAITING: Held = Held::zero();
/// How many threads are about to fork.
static FORKS: Held = Held::zero();
/// Whether the interpreter is about to end.
static ENDS: Held = Held::zero();
/// Whether this process was forked in the middle of a call of another thread.
static IS_CUT_OFF: Held = Held::zero();

thread_local! {
    /// How many calls the thread is in, one within the other.
    static DEPTH: Cell<usize> = const { Cell::new(0) };
}

/// How long a fork or the end waits for Python code within a call.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often what is waited for is looked at.
const PAUSE: Duration = Duration::from_micros(200);

/// What a call uses, from its begin to its end.
pub(super) struct InUse<T> {
    // Fields are dropped in this order.
    what: T,
    _call: Call,
}

/// A call in progress. It belongs to a thread.
struct Call(PhantomData<*const ()>);

impl<T> InUse<T> {
    /// Begins a call, and takes what it uses.
    #[inline]
    pub(super) fn begin<E>(py: Python<'_>, take: impl FnOnce() -> Result<T, E>) -> Result<Self, E> {
        let call = Call::begin(py);
        Ok(Self { what: take()?, _call: call })
    }
}

impl<T: Deref> Deref for InUse<T> {
    type Target = T::Target;

    #[inline]
    fn deref(&self) -> &T::Target {
        &self.what
    }
}

impl<T: DerefMut> DerefMut for InUse<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T::Target {
        &mut self.what
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
    let _waiting = WAITING.count();
    while FORKS.get() > 0 {
        py.detach(|| thread::sleep(PAUSE));
    }
}

/// Computes without the interpreter, within a call.
pub(super) fn detached<T: Send>(py: Python<'_>, work: impl FnOnce() -> T + Send) -> T {
    if ENDS.get() > 0 {
        return work();
    }
    let _computing = COMPUTING.count();
    py.detach(work)
}

/// Returns when no other thread is in a call, or when Python code within one takes too long.
fn wait_for_calls(py: Python<'_>, others: impl Fn() -> usize) {
    let mut since = Instant::now();
    while others() > 0 && since.elapsed() < PATIENCE {
        if COMPUTING.get() > 0 {
            since = Instant::now();
        }
        py.detach(|| thread::sleep(PAUSE));
    }
}

/// To be called before a fork: waits for calls of other threads, and keeps new ones waiting.
#[pyfunction]
pub(crate) fn before_fork(py: Python<'_>) {
    FORKS.set(FORKS.get() + 1);
    let own = usize::from(DEPTH.get() > 0);
    // Others that are about to fork, within a call of theirs, must not wait for this one.
    INSIDE.set(INSIDE.get() - own);
    wait_for_calls(py, || INSIDE.get());
    INSIDE.set(INSIDE.get() + own);
}

/// To be called in the parent after a fork: calls may begin again.
#[pyfunction]
pub(crate) fn after_fork_in_parent() {
    FORKS.set(FORKS.get().saturating_sub(1));
}

/// To be called in the child after a fork: of all threads only the calling one is left.
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

/// To be called at the end of the interpreter: waits for calls of other threads, and keeps new ones from giving it up.
#[pyfunction]
pub(crate) fn at_exit(py: Python<'_>) {
    ENDS.set(1);
    let own = usize::from(DEPTH.get() > 0);
    wait_for_calls(py, || INSIDE.get() - own + WAITING.get());
}

/// Whether this process was forked in the middle of a call of another thread.
pub(super) fn is_cut_off() -> bool {
    IS_CUT_OFF.get() > 0
}
