//! Where a thread wakes up.
//!
//! A waker's core is where Linux likes to put the thread that it wakes, above all in a virtual machine, where an idle core
//! looks as if it had been taken away. There the thread waits for a tick, some milliseconds, since the waker goes on
//! working. So for the moment of waking, the waker's core is taken from those that the thread may run on.
//!
//! The affinity of a thread may be changed from outside at any time (`taskset -a -p`), and then that is what holds:
//!
//! * What is narrowed is the affinity that the thread has now. A core that is not in it is never added.
//! * The thread takes the narrowing back as soon as it runs, unless its affinity is no longer the narrowed one.
//! * The system has no exchange that compares, so a change that falls between a look and a write would be lost. Programs
//!   that change the affinity of a process go through its threads in order, the main thread first, and nobody here writes to
//!   that one. So only a thread with the affinity of the main thread is narrowed, and the main thread is looked at again
//!   after each write: where its affinity has changed, the other thread gets the same.

#[cfg(target_os = "linux")]
pub(super) use linux::{Narrowing, Placement};
#[cfg(not(target_os = "linux"))]
pub(super) use other::{Narrowing, Placement};

#[cfg(target_os = "linux")]
mod linux {
    use std::mem;

    use libc::{CPU_CLR, CPU_COUNT, CPU_EQUAL, CPU_ISSET, cpu_set_t, pid_t};

    /// A thread that sleeps and wakes.
    pub(in super::super) struct Placement {
        thread: pid_t,
    }

    /// The affinities of a thread that is being woken.
    pub(in super::super) struct Narrowing {
        /// What it was and will be again, and what that of the main thread was.
        before: cpu_set_t,
        /// What it was set to.
        narrowed: cpu_set_t,
    }

    impl Placement {
        /// That of the calling thread.
        pub(in super::super) fn of_this_thread() -> Self {
            // SAFETY: it takes nothing and can't fail.
            Self { thread: unsafe { libc::gettid() } }
        }

        /// Keeps the thread, which sleeps, off the core of the caller until it [takes that back](Self::widen). Where that
        /// can't be had nothing changes.
        pub(in super::super) fn narrow(&self) -> Option<Narrowing> {
            // SAFETY: it takes nothing.
            let core = usize::try_from(unsafe { libc::sched_getcpu() }).ok()?;
            let process = affinity(main_thread())?;
            let before = affinity(self.thread).filter(|before| equal(before, &process))?;
            // SAFETY: the system numbers cores below the size of a set, which the call checks besides.
            if core >= 8 * size_of::<cpu_set_t>() || !unsafe { CPU_ISSET(core, &before) } {
                return None;
            }
            let mut narrowed = before;
            // SAFETY: as above.
            unsafe { CPU_CLR(core, &mut narrowed) };
            // SAFETY: it is a set.
            let is_some = unsafe { CPU_COUNT(&narrowed) } > 0;
            (is_some && self.set(&narrowed, before)).then_some(Narrowing { before, narrowed })
        }

        /// Has the calling thread, which this is, run where it could before it was woken, or where it may by now.
        pub(in super::super) fn widen(&self, &Narrowing { before, narrowed }: &Narrowing) {
            if affinity(self.thread).is_some_and(|now| equal(&now, &narrowed)) {
                self.set(&before, before);
            }
        }

        /// Sets the affinity of the thread, unless that of the main thread is no longer as it was: then that one. Returns whether
        /// it was set to what was asked for.
        fn set(&self, cores: &cpu_set_t, process: cpu_set_t) -> bool {
            let (mut cores, mut known, mut is_as_asked) = (*cores, process, true);
            loop {
                // SAFETY: the set is valid for reads and its size is given.
                let status = unsafe { libc::sched_setaffinity(self.thread, size_of::<cpu_set_t>(), &raw const cores) };
                let now = affinity(main_thread()).filter(|_| status == 0);
                let Some(now) = now else { return false };
                if equal(&now, &known) {
                    return is_as_asked;
                }
                (cores, known, is_as_asked) = (now, now, false);
            }
        }
    }

    /// The main thread has the number of the process.
    fn main_thread() -> pid_t {
        // SAFETY: it takes nothing and can't fail.
        unsafe { libc::getpid() }
    }

    /// The cores that a thread may run on; `None` if the system does not say.
    fn affinity(thread: pid_t) -> Option<cpu_set_t> {
        // SAFETY: a set of no cores is all zeros.
        let mut cores: cpu_set_t = unsafe { mem::zeroed() };
        // SAFETY: the set is valid for writes and its size is given.
        let status = unsafe { libc::sched_getaffinity(thread, size_of::<cpu_set_t>(), &raw mut cores) };
        (status == 0).then_some(cores)
    }

    fn equal(a: &cpu_set_t, b: &cpu_set_t) -> bool {
        // SAFETY: both are sets.
        unsafe { CPU_EQUAL(a, b) }
    }
}

#[cfg(not(target_os = "linux"))]
mod other {
    /// Nothing is known of it on this system.
    pub(in super::super) struct Placement;

    /// There is none.
    pub(in super::super) struct Narrowing;

    impl Placement {
        pub(in super::super) fn of_this_thread() -> Self {
            Self
        }

        #[expect(clippy::unused_self, reason = "elsewhere it is used")]
        pub(in super::super) fn narrow(&self) -> Option<Narrowing> {
            None
        }

        #[expect(clippy::unused_self, reason = "elsewhere it is used")]
        pub(in super::super) fn widen(&self, _: &Narrowing) {}
    }
}
