//! Where a thread wakes up.
//!
//! A waker's core is where Linux likes to put the thread that it wakes, above all in a virtual machine, where an idle core
//! looks as if it had been taken away. There the thread waits for a tick, some milliseconds, since the waker goes on
//! working. So before a thread is woken its waker's core is taken from those that it may run on.

#[cfg(target_os = "linux")]
pub(super) use linux::Placement;
#[cfg(not(target_os = "linux"))]
pub(super) use other::Placement;

#[cfg(target_os = "linux")]
mod linux {
    use std::mem;

    use libc::{CPU_CLR, CPU_COUNT, CPU_ISSET, cpu_set_t, pid_t};

    /// A thread, and the cores that it may run on.
    pub(in super::super) struct Placement {
        thread: pid_t,
        allowed: cpu_set_t,
    }

    impl Placement {
        /// That of the calling thread; `None` if the system does not say.
        pub(in super::super) fn of_this_thread() -> Option<Self> {
            // SAFETY: a set of no cores is all zeros.
            let mut allowed: cpu_set_t = unsafe { mem::zeroed() };
            // SAFETY: it takes nothing and can't fail.
            let thread = unsafe { libc::gettid() };
            // SAFETY: the set is valid for writes and its size is given.
            let status = unsafe { libc::sched_getaffinity(thread, size_of::<cpu_set_t>(), &raw mut allowed) };
            (status == 0).then_some(Self { thread, allowed })
        }

        /// Keeps the thread, which sleeps, off the core of the caller. Where that can't be had nothing changes.
        pub(in super::super) fn keep_off_this_core(&self) {
            // SAFETY: it takes nothing.
            let Ok(core) = usize::try_from(unsafe { libc::sched_getcpu() }) else { return };
            let mut cores = self.allowed;
            // SAFETY: the system numbers cores below the size of a set, which the call checks besides.
            if core >= 8 * size_of::<cpu_set_t>() || !unsafe { CPU_ISSET(core, &cores) } {
                return;
            }
            // SAFETY: as above.
            unsafe { CPU_CLR(core, &mut cores) };
            // SAFETY: as above.
            if unsafe { CPU_COUNT(&cores) } > 0 {
                // SAFETY: the set is valid for reads and its size is given. If the thread is gone the call fails.
                unsafe { libc::sched_setaffinity(self.thread, size_of::<cpu_set_t>(), &raw const cores) };
            }
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod other {
    /// Nothing is known of it on this system.
    pub(in super::super) struct Placement;

    impl Placement {
        pub(in super::super) fn of_this_thread() -> Option<Self> {
            None
        }

        pub(in super::super) fn keep_off_this_core(&self) {}
    }
}
