//! The gate of a job: whether helpers may enter, and how many are inside.
//!
//! ```text
//! leader   publish the job, open, work, close, wait until empty, free the job
//! helper   enter (only while open), work, leave
//! ```
//!
//! All of it is one atomic word, so a late helper either counts itself in with one exchange while the gate is open, or stays out.
//! When the gate is closed and empty no helper uses the job.

use super::sync::{AtomicU64, Ordering};

/// Bits 0–15: helpers inside. Bit 16: open. Bits 17–31: participants. Bits 32–63: job number.
pub(super) struct Gate(AtomicU64);

const OPEN: u64 = 1 << 16;
const INSIDE: u64 = OPEN - 1;
const PARTICIPANTS: u32 = 17;
const PARTICIPANTS_MASK: u64 = (1 << 15) - 1;
const NUMBER: u32 = 32;

impl Gate {
    pub(super) fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Opens the gate for a new job to helpers 1 to `participants` − 1. The leader calls this, with the gate closed and empty.
    /// Helpers that enter see what it wrote before.
    pub(super) fn open(&self, participants: usize) {
        let number = (self.0.load(Ordering::Relaxed) >> NUMBER).wrapping_add(1);
        let participants = participants as u64 & PARTICIPANTS_MASK;
        self.0.store(number << NUMBER | participants << PARTICIPANTS | OPEN, Ordering::Release);
    }

    pub(super) fn close(&self) {
        self.0.fetch_and(!OPEN, Ordering::Relaxed);
    }

    /// Whether all helpers have left. The caller then sees what they wrote.
    pub(super) fn is_empty(&self) -> bool {
        self.0.load(Ordering::Acquire) & INSIDE == 0
    }

    /// Whether this helper may enter a job other than the `last` one.
    pub(super) fn is_open_to(&self, helper: usize, last: u64) -> bool {
        Self::admits(self.0.load(Ordering::Relaxed), helper, last)
    }

    /// Enters if the gate is open to this helper, at most once per job: `last` is the number of its last job.
    pub(super) fn enter(&self, helper: usize, last: &mut u64) -> bool {
        let mut word = self.0.load(Ordering::Relaxed);
        while Self::admits(word, helper, *last) {
            match self.0.compare_exchange_weak(word, word + 1, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => {
                    *last = word >> NUMBER;
                    return true;
                }
                Err(now) => word = now,
            }
        }
        false
    }

    pub(super) fn leave(&self) {
        self.0.fetch_sub(1, Ordering::Release);
    }

    fn admits(word: u64, helper: usize, last: u64) -> bool {
        word & OPEN != 0 && word >> NUMBER != last && (helper as u64) < (word >> PARTICIPANTS & PARTICIPANTS_MASK)
    }
}
