//! Affinity of a helper while it is woken.
//!
//! Linux often places a woken thread on the core of its waker, above all in a virtual machine, where an idle core looks as if the
//! host had taken it away. The waker goes on working, so the thread waits for a scheduler tick, some milliseconds. Therefore:
//!
//! ```text
//! waker    remove its own core from the affinity of the helper, unpark it
//! helper   wake up on another core, restore its affinity
//! ```
//!
//! An affinity set from outside meanwhile (`taskset -a -p`) is kept:
//!
//! * The waker removes its core from the helper's present affinity, and never adds one.
//! * The helper restores its affinity only if it still is the narrowed one.
//! * There is no compare-and-exchange for affinities, so a change between a read and a write could be lost. Programs set the
//!   affinity of a process thread by thread, the main thread first, and lrcore never changes that of the main thread. So only
//!   helpers with the affinity of the main thread are narrowed, and after each write it is read again: if it has changed, the
//!   helper gets the same.

#[cfg(target_os = "linux")]
pub(super) use linux::{Narrowed, ThreadAffinity};
#[cfg(not(target_os = "linux"))]
pub(super) use other::{Narrowed, ThreadAffinity};

#[cfg(target_os = "linux")]
mod linux {
    use std::mem;

    use libc::{CPU_CLR, CPU_COUNT, CPU_EQUAL, CPU_ISSET, cpu_set_t, pid_t};

    pub(in super::super) struct ThreadAffinity {
        thread: pid_t,
    }

    /// The affinity of a thread that is being woken.
    pub(in super::super) struct Narrowed {
        /// The one before, which was also that of the main thread.
        before: cpu_set_t,
        /// The one without the core of the waker.
        narrowed: cpu_set_t,
    }

    impl ThreadAffinity {
        pub(in super::super) fn of_this_thread() -> Self {
            // SAFETY: it has no arguments and can't fail.
            Self { thread: unsafe { libc::gettid() } }
        }

        /// Removes the caller's core, until [`restore`](Self::restore). Returns `None`, and changes nothing, where that is not
        /// possible.
        pub(in super::super) fn exclude_caller(&self) -> Option<Narrowed> {
            // SAFETY: it has no arguments.
            let core = usize::try_from(unsafe { libc::sched_getcpu() }).ok()?;
            let main = affinity(main_thread())?;
            let before = affinity(self.thread).filter(|before| equal(before, &main))?;
            // SAFETY: the core is below the size of a set, which is compared first.
            if core >= 8 * size_of::<cpu_set_t>() || !unsafe { CPU_ISSET(core, &before) } {
                return None;
            }
            let mut narrowed = before;
            // SAFETY: as above.
            unsafe { CPU_CLR(core, &mut narrowed) };
            // SAFETY: the argument is a set.
            let is_any_left = unsafe { CPU_COUNT(&narrowed) } > 0;
            (is_any_left && self.set(&narrowed, before)).then_some(Narrowed { before, narrowed })
        }

        /// Restores the affinity, unless it was changed from outside. The thread itself calls this.
        pub(in super::super) fn restore(&self, &Narrowed { before, narrowed }: &Narrowed) {
            if affinity(self.thread).is_some_and(|now| equal(&now, &narrowed)) {
                self.set(&before, before);
            }
        }

        /// Sets the affinity to `cores`, or to that of the main thread if it is no longer `main`. Returns whether it is `cores`.
        fn set(&self, cores: &cpu_set_t, main: cpu_set_t) -> bool {
            let (mut cores, mut known, mut is_as_given) = (*cores, main, true);
            loop {
                // SAFETY: the set is valid for reads and its size is given.
                let status = unsafe { libc::sched_setaffinity(self.thread, size_of::<cpu_set_t>(), &raw const cores) };
                let now = affinity(main_thread()).filter(|_| status == 0);
                let Some(now) = now else { return false };
                if equal(&now, &known) {
                    return is_as_given;
                }
                (cores, known, is_as_given) = (now, now, false);
            }
        }
    }

    /// The main thread, which has the number of the process.
    fn main_thread() -> pid_t {
        // SAFETY: it has no arguments and can't fail.
        unsafe { libc::getpid() }
    }

    /// The cores that a thread may run on; `None` if the system does not tell.
    fn affinity(thread: pid_t) -> Option<cpu_set_t> {
        // SAFETY: all zeros is the empty set.
        let mut cores: cpu_set_t = unsafe { mem::zeroed() };
        // SAFETY: the set is valid for writes and its size is given.
        let status = unsafe { libc::sched_getaffinity(thread, size_of::<cpu_set_t>(), &raw mut cores) };
        (status == 0).then_some(cores)
    }

    fn equal(a: &cpu_set_t, b: &cpu_set_t) -> bool {
        // SAFETY: both arguments are sets.
        unsafe { CPU_EQUAL(a, b) }
    }
}

#[cfg(not(target_os = "linux"))]
mod other {
    /// Affinity is not changed on this system.
    pub(in super::super) struct ThreadAffinity;

    pub(in super::super) struct Narrowed;

    impl ThreadAffinity {
        pub(in super::super) fn of_this_thread() -> Self {
            Self
        }

        #[expect(clippy::unused_self, reason = "Linux uses it")]
        pub(in super::super) fn exclude_caller(&self) -> Option<Narrowed> {
            None
        }

        #[expect(clippy::unused_self, reason = "Linux uses it")]
        pub(in super::super) fn restore(&self, _: &Narrowed) {}
    }
}
