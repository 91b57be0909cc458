//! Work stealing: which participant takes which chunk.
//!
//! Each participant takes chunks from the front of a range of its own, which is the same in every step of a batch and so still in
//! its cache. When the range is empty it takes chunks from the back of the others' ranges. A late or absent participant costs
//! nothing.

use super::sync::{AtomicU64, Ordering};

/// The remaining range of each participant.
pub(super) struct Claims(Box<[Remaining]>);

/// A range of chunks: the first in the high half, one past the last in the low half. On cache lines of its own.
#[repr(align(128))]
struct Remaining(AtomicU64);

impl Claims {
    pub(super) fn new(participants: usize) -> Self {
        Self((0..participants).map(|_| Remaining(AtomicU64::new(0))).collect())
    }

    /// Deals chunks 0 to `chunks` − 1 in equal ranges. No participant may be inside.
    pub(super) fn deal(&self, chunks: usize, participants: usize) {
        let bound = |participant| (chunks * participant / participants) as u64;
        for (participant, remaining) in self.0[..participants].iter().enumerate() {
            remaining.0.store(bound(participant) << 32 | bound(participant + 1), Ordering::Relaxed);
        }
    }

    /// The next chunk for a participant, or `None` if all have been taken.
    pub(super) fn next(&self, participant: usize, participants: usize) -> Option<usize> {
        let own = self.0[participant].take(|first, end| (first, first + 1, end));
        own.or_else(|| {
            let mut others = (1..participants).map(|i| (participant + i) % participants);
            others.find_map(|other| self.0[other].take(|first, end| (end - 1, first, end - 1)))
        })
    }
}

impl Remaining {
    /// Takes one chunk: `choose(first, end)` returns it and the remaining range.
    fn take(&self, choose: impl Fn(u64, u64) -> (u64, u64, u64)) -> Option<usize> {
        let mut word = self.0.load(Ordering::Relaxed);
        loop {
            let (first, end) = (word >> 32, word & u64::from(u32::MAX));
            if first >= end {
                return None;
            }
            let (chunk, first, end) = choose(first, end);
            match self.0.compare_exchange_weak(word, first << 32 | end, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return usize::try_from(chunk).ok(),
                Err(now) => word = now,
            }
        }
    }
}
