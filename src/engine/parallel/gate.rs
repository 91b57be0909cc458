//! The gate of a job: who may still enter, and who is inside.
//!
//! One word holds all of it, so a thread that comes late either counts itself in while the gate is open, in one exchange,
//! or stays out. The leader publishes a job and opens the gate; helpers enter and leave; the leader closes it and waits
//! until it is empty. From then on nobody holds on to the job, and its memory may go.

use super::sync::{AtomicU64, Ordering};

/// Bits 0–15: how many are inside. Bit 16: open. Bits 17–31: how many may take part. Bits 32–63: the job's number.
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

    /// Opens the gate for a new job to helpers 1 to `participants` − 1. The leader calls this, with the gate shut and
    /// empty. What it wrote before is seen by those who enter.
    pub(super) fn open(&self, participants: usize) {
        let number = (self.0.load(Ordering::Relaxed) >> NUMBER).wrapping_add(1);
        let participants = participants as u64 & PARTICIPANTS_MASK;
        self.0.store(number << NUMBER | participants << PARTICIPANTS | OPEN, Ordering::Release);
    }

    /// Lets nobody in any more.
    pub(super) fn close(&self) {
        self.0.fetch_and(!OPEN, Ordering::Relaxed);
    }

    /// Whether all who entered have left. What they wrote is then seen by the caller.
    pub(super) fn is_empty(&self) -> bool {
        self.0.load(Ordering::Acquire) & INSIDE == 0
    }

    /// Whether there is a job that this helper may enter and that is not the `last` one it was in.
    pub(super) fn calls(&self, helper: usize, last: u64) -> bool {
        Self::admits(self.0.load(Ordering::Relaxed), helper, last)
    }

    /// Enters if the gate is open to this helper, at most once a job: `last` is the number of the job it was in last.
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
