//! Instruction sets: which there are, which is in use, and how code compiled for one is entered.
//!
//! A job is generic code marked `#[inline(always)]`; [`run`] calls it from inside a function that enables an instruction
//! set, so the compiler vectorises one source for every level. Detection is at run time: one build serves every machine of
//! a platform. No level enables contraction to fused multiply-add, so all of them compute the same bits.

use std::sync::atomic::{AtomicU8, Ordering};

use super::format::Element;
use super::tensor::MAX_STATE;

/// An instruction set, from the least to the best.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Level {
    /// What every machine of the platform has: SSE2 on x86-64, NEON on aarch64.
    Baseline = 1,
    /// 256-bit vectors on x86-64.
    Avx2 = 2,
    /// 512-bit vectors on x86-64, where they are worth it: see `entered`.
    Avx512 = 3,
    /// 128-bit vectors on aarch64, where they are the baseline: the name users know.
    Neon = 4,
}

impl Level {
    const ALL: [Self; 4] = [Self::Baseline, Self::Avx2, Self::Avx512, Self::Neon];

    /// The name that users write.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Baseline => "baseline",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
            Self::Neon => "neon",
        }
    }

    /// The level of that name, available here or not.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.name() == name)
    }

    /// Whether this machine can run it.
    #[must_use]
    pub fn is_available(self) -> bool {
        match self {
            Self::Baseline => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => is_x86_feature_detected!("avx2"),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => {
                is_x86_feature_detected!("avx2")
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512bw")
            }
            #[cfg(not(target_arch = "x86_64"))]
            Self::Avx2 | Self::Avx512 => false,
            Self::Neon => cfg!(target_arch = "aarch64"),
        }
    }

    /// The levels that this machine can run, from the least to the best.
    pub fn available() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|level| level.is_available())
    }

    /// The best level that this machine can run.
    #[must_use]
    pub fn detect() -> Self {
        Self::available().last().unwrap_or(Self::Baseline)
    }
}

/// The level in use, 0 before it is first asked for.
static CURRENT: AtomicU8 = AtomicU8::new(0);

/// The level in use: the best, unless [`set`] chose another.
#[must_use]
pub fn current() -> Level {
    let raw = CURRENT.load(Ordering::Relaxed);
    Level::ALL.into_iter().find(|&level| level as u8 == raw).unwrap_or_else(|| {
        let best = Level::detect();
        CURRENT.store(best as u8, Ordering::Relaxed);
        best
    })
}

/// Uses this level from the next step on. False, and nothing changed, if this machine can't run it.
#[must_use]
pub fn set(level: Level) -> bool {
    if level.is_available() {
        CURRENT.store(level as u8, Ordering::Relaxed);
    }
    level.is_available()
}

/// Work to be compiled for every instruction set.
pub(super) trait SimdJob {
    /// What comes of it.
    type Output;

    /// Does the work. Implementations are `#[inline(always)]`, and so is everything that they call in a loop.
    fn run(self) -> Self::Output;
}

/// A loop over the operands of a tensor, to be compiled for every instruction set.
pub(super) trait Loop<C: Element, T> {
    /// Whether it divides or takes roots.
    const DIVIDES: bool;

    /// Runs the loop over blocks of `L` elements, and shows them to the stats. Implementations are `#[inline(always)]`, and so is everything that they call.
    fn run<const L: usize>(
        self,
        weight: &mut [[C; L]],
        grad: &[[C; L]],
        state: [&mut [[C; L]]; MAX_STATE],
        average: &mut [[C; L]],
        stats: &mut T,
    );
}

/// Runs the job, compiled for the level, which must be available.
#[inline]
pub(super) fn run<J: SimdJob>(level: Level, job: J) -> J::Output {
    debug_assert!(level.is_available());
    match level {
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => {
            #[target_feature(enable = "avx2")]
            fn avx2<J: SimdJob>(job: J) -> J::Output {
                job.run()
            }
            // SAFETY: `set` and `detect` let only available levels through.
            unsafe { avx2(job) }
        }
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => {
            #[target_feature(enable = "avx2,avx512f,avx512vl,avx512dq,avx512bw")]
            fn avx512<J: SimdJob>(job: J) -> J::Output {
                job.run()
            }
            // SAFETY: as above.
            unsafe { avx512(job) }
        }
        _ => job.run(),
    }
}

/// The level that a loop is entered at: a loop that divides leaves 512-bit vectors to machines that divide as fast with
/// them. On AMD they do, and fewer instructions leave room to look further ahead in memory; on Intel, up to Sapphire Rapids
/// at least, they are slower than two 256-bit ones.
#[inline(always)]
fn entered(level: Level, divides: bool) -> Level {
    // Only AMD has ever made SSE4a.
    #[cfg(target_arch = "x86_64")]
    let divides_wide = is_x86_feature_detected!("sse4a");
    #[cfg(not(target_arch = "x86_64"))]
    let divides_wide = true;
    if level == Level::Avx512 && divides && !divides_wide { Level::Avx2 } else { level }
}

/// A function for each level, alike but for the instructions that the compiler may use in it.
macro_rules! entries {
    ($($(#[$attribute:meta])* $name:ident)*) => {$(
        $(#[$attribute])*
        #[expect(clippy::too_many_arguments, reason = "each operand is one, for the compiler to know that none overlaps another")]
        fn $name<C: Element, B: Loop<C, T>, T, const L: usize>(
            body: B,
            weight: &mut [[C; L]],
            grad: &[[C; L]],
            state0: &mut [[C; L]],
            state1: &mut [[C; L]],
            state2: &mut [[C; L]],
            state3: &mut [[C; L]],
            average: &mut [[C; L]],
            stats: &mut T,
        ) {
            body.run(weight, grad, [state0, state1, state2, state3], average, stats);
        }
    )*};
}
entries! {
    #[inline(never)]
    enter_baseline

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2")]
    enter_avx2

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,avx512f,avx512vl,avx512dq,avx512bw")]
    enter_avx512
}

/// Runs the loop, compiled for the level, which must be available. Each operand is an argument of its own, never part of a
/// struct or an array: that is how the compiler learns that they don't overlap.
#[inline(always)]
pub(super) fn enter<C: Element, B: Loop<C, T>, T, const L: usize>(
    level: Level,
    body: B,
    weight: &mut [[C; L]],
    grad: &[[C; L]],
    state: [&mut [[C; L]]; MAX_STATE],
    average: &mut [[C; L]],
    stats: &mut T,
) {
    let [state0, state1, state2, state3] = state;
    debug_assert!(level.is_available());
    match entered(level, B::DIVIDES) {
        // SAFETY: `set` and `detect` let only available levels through; AVX-512 comes with AVX2.
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => unsafe {
            enter_avx512(body, weight, grad, state0, state1, state2, state3, average, stats);
        },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => unsafe {
            enter_avx2(body, weight, grad, state0, state1, state2, state3, average, stats);
        },
        _ => enter_baseline(body, weight, grad, state0, state1, state2, state3, average, stats),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        for level in Level::ALL {
            assert_eq!(Level::from_name(level.name()), Some(level));
        }
        assert_eq!(Level::from_name("sse9"), None);
    }

    #[test]
    fn baseline_is_always_available() {
        assert!(Level::available().any(|level| level == Level::Baseline));
        assert!(Level::detect().is_available());
    }
}
