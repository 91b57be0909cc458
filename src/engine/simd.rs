//! Instruction sets: which exist, which is in use, and how code compiled for one is called.
//!
//! ```text
//! #[target_feature(enable = "avx2")]
//! fn avx2(job) { job.run() }              job.run is #[inline(always)]: compiled for AVX2 here
//!
//! match level { Avx2 => avx2(job), Avx512 => avx512(job), _ => job.run() }
//! ```
//!
//! So the compiler vectorises one source for every level, and one build serves every machine of a platform. No level enables
//! contraction to fused multiply-add: all of them compute the same bits.
//! <https://doc.rust-lang.org/reference/attributes/codegen.html#the-target_feature-attribute>

use std::sync::atomic::{AtomicU8, Ordering};

use super::format::Element;
use super::tensor::MAX_STATE;

/// An instruction set. The order is from the narrowest to the widest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Level {
    /// What every machine of the platform has: SSE2 on x86-64, NEON on aarch64.
    Baseline = 1,
    /// 256-bit vectors on x86-64.
    Avx2 = 2,
    /// 512-bit vectors on x86-64, where they are faster: see `loop_level`.
    Avx512 = 3,
    /// 128-bit vectors on aarch64: its baseline, by the name that users know.
    Neon = 4,
}

impl Level {
    const ALL: [Self; 4] = [Self::Baseline, Self::Avx2, Self::Avx512, Self::Neon];

    /// Its name, in lower case.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Baseline => "baseline",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
            Self::Neon => "neon",
        }
    }

    /// The level of that name, available on this machine or not.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.name() == name)
    }

    /// Whether this machine supports it.
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

    /// The levels that this machine supports, from the narrowest to the widest.
    pub fn available() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|level| level.is_available())
    }

    /// The widest level that this machine supports.
    #[must_use]
    pub fn detect() -> Self {
        Self::available().last().unwrap_or(Self::Baseline)
    }
}

/// The level in use, 0 before the first call of [`current`].
static CURRENT: AtomicU8 = AtomicU8::new(0);

/// The level in use: the widest, unless [`set`] chose another.
#[must_use]
pub fn current() -> Level {
    let raw = CURRENT.load(Ordering::Relaxed);
    Level::ALL.into_iter().find(|&level| level as u8 == raw).unwrap_or_else(|| {
        let best = Level::detect();
        CURRENT.store(best as u8, Ordering::Relaxed);
        best
    })
}

/// Uses this level from the next step on. Returns false, and changes nothing, if this machine does not support it.
#[must_use]
pub fn set(level: Level) -> bool {
    if level.is_available() {
        CURRENT.store(level as u8, Ordering::Relaxed);
    }
    level.is_available()
}

/// Code that is compiled for every level.
pub(super) trait SimdJob {
    type Output;

    /// Runs the job. Implementations are `#[inline(always)]`, and so is everything that they call in a loop.
    fn run(self) -> Self::Output;
}

/// A loop over the operands of a tensor, which is compiled for every level.
pub(super) trait Loop<E: Element, S> {
    const DIVIDES: bool;

    /// Runs the loop over blocks of `L` elements. Implementations are `#[inline(always)]`, and so is everything that they call.
    fn run<const L: usize>(
        self,
        weight: &mut [[E; L]],
        grad: &[[E; L]],
        state: [&mut [[E; L]]; MAX_STATE],
        average: &mut [[E; L]],
        stats: &mut S,
    );
}

/// Runs the job, compiled for the level, which must be available.
#[inline]
pub(super) fn run_job<J: SimdJob>(level: Level, job: J) -> J::Output {
    debug_assert!(level.is_available());
    match level {
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => {
            #[target_feature(enable = "avx2")]
            fn avx2<J: SimdJob>(job: J) -> J::Output {
                job.run()
            }
            // SAFETY: only available levels pass `set` and `detect`.
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

/// The level at which a loop runs: one that divides uses 512-bit vectors only where they divide as fast as two of 256 bits. On AMD
/// they do, and half as many instructions let the processor look further ahead in memory; on Intel, up to Sapphire Rapids at
/// least, they are slower.
#[inline(always)]
fn loop_level(level: Level, divides: bool) -> Level {
    // SSE4a exists on AMD only.
    #[cfg(target_arch = "x86_64")]
    let divides_wide = is_x86_feature_detected!("sse4a");
    #[cfg(not(target_arch = "x86_64"))]
    let divides_wide = true;
    if level == Level::Avx512 && divides && !divides_wide { Level::Avx2 } else { level }
}

/// The same function for each level.
macro_rules! loops {
    ($($(#[$attribute:meta])* $name:ident)*) => {$(
        $(#[$attribute])*
        #[expect(clippy::too_many_arguments, reason = "each operand is an argument, so that the compiler knows that none overlaps another")]
        fn $name<E: Element, B: Loop<E, S>, S, const L: usize>(
            body: B,
            weight: &mut [[E; L]],
            grad: &[[E; L]],
            state0: &mut [[E; L]],
            state1: &mut [[E; L]],
            state2: &mut [[E; L]],
            state3: &mut [[E; L]],
            average: &mut [[E; L]],
            stats: &mut S,
        ) {
            body.run(weight, grad, [state0, state1, state2, state3], average, stats);
        }
    )*};
}
loops! {
    #[inline(never)]
    loop_baseline

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2")]
    loop_avx2

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,avx512f,avx512vl,avx512dq,avx512bw")]
    loop_avx512
}

/// Runs the loop, compiled for the level, which must be available. Each operand is an argument of its own, never part of a struct
/// or an array: `&mut` means `noalias` in arguments alone.
#[inline(always)]
pub(super) fn run_loop<E: Element, B: Loop<E, S>, S, const L: usize>(
    level: Level,
    body: B,
    weight: &mut [[E; L]],
    grad: &[[E; L]],
    state: [&mut [[E; L]]; MAX_STATE],
    average: &mut [[E; L]],
    stats: &mut S,
) {
    let [state0, state1, state2, state3] = state;
    debug_assert!(level.is_available());
    match loop_level(level, B::DIVIDES) {
        // SAFETY: only available levels pass `set` and `detect`, and AVX-512 includes AVX2.
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => unsafe {
            loop_avx512(body, weight, grad, state0, state1, state2, state3, average, stats);
        },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => unsafe {
            loop_avx2(body, weight, grad, state0, state1, state2, state3, average, stats);
        },
        _ => loop_baseline(body, weight, grad, state0, state1, state2, state3, average, stats),
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
