//! The floating-point mode of a thread: rounding, and what becomes of subnormal numbers.
//!
//! A program may change the mode of its threads, as `torch.set_flush_denormal(True)` does, and a thread has the mode of the
//! one that started it. Results must depend on neither, so everything here is computed in the mode that every program
//! starts with, which is also the one that Rust's arithmetic is defined for: to the nearest, subnormal numbers kept.

use std::marker::PhantomData;

/// The calling thread computes in the default mode while this lives; then its own mode is back.
#[derive(Debug)]
pub struct DefaultMode {
    /// The control register as it was found, if it was not in the default mode.
    found: Option<control::Register>,
    /// A mode belongs to a thread.
    thread: PhantomData<*const ()>,
}

impl DefaultMode {
    /// Enters the default mode.
    #[inline]
    #[must_use]
    pub fn enter() -> Self {
        let found = control::read();
        let is_default = found & control::MODE == control::DEFAULT;
        if !is_default {
            control::write(found & !control::MODE | control::DEFAULT);
        }
        Self { found: (!is_default).then_some(found), thread: PhantomData }
    }
}

impl Drop for DefaultMode {
    #[inline]
    fn drop(&mut self) {
        if let Some(found) = self.found {
            control::write(found);
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod control {
    use std::arch::asm;

    pub(super) type Register = u32;
    /// In MXCSR: the mode without the flags of exceptions that have happened.
    pub(super) const MODE: Register = 0xffc0;
    /// All exceptions masked.
    pub(super) const DEFAULT: Register = 0x1f80;

    #[inline]
    pub(super) fn read() -> Register {
        let mut value: Register = 0;
        // SAFETY: it writes four bytes to a number that may be written.
        unsafe { asm!("stmxcsr [{}]", in(reg) &raw mut value, options(nostack, preserves_flags)) };
        value
    }

    #[inline]
    pub(super) fn write(value: Register) {
        // SAFETY: it reads four bytes. The bits that are reserved are those that were read.
        unsafe { asm!("ldmxcsr [{}]", in(reg) &raw const value, options(nostack, preserves_flags)) };
    }
}

#[cfg(target_arch = "aarch64")]
mod control {
    use std::arch::asm;

    pub(super) type Register = u64;
    /// In FPCR, which has no flags of exceptions: all of it.
    pub(super) const MODE: Register = u64::MAX;
    pub(super) const DEFAULT: Register = 0;

    #[inline]
    pub(super) fn read() -> Register {
        let value;
        // SAFETY: every program may read the register.
        unsafe { asm!("mrs {}, fpcr", out(reg) value, options(nomem, nostack, preserves_flags)) };
        value
    }

    #[inline]
    pub(super) fn write(value: Register) {
        // SAFETY: every program may write it, and it is the default or what it was. Nothing is computed across it, since it is
        // taken to change memory.
        unsafe { asm!("msr fpcr, {}", in(reg) value, options(nostack, preserves_flags)) };
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
mod control {
    //! Elsewhere the mode is taken to be the default.

    pub(super) type Register = u32;
    pub(super) const MODE: Register = 0;
    pub(super) const DEFAULT: Register = 0;

    pub(super) fn read() -> Register {
        DEFAULT
    }

    pub(super) fn write(_: Register) {}
}

#[cfg(all(test, any(target_arch = "x86_64", target_arch = "aarch64")))]
mod tests {
    use std::hint::black_box;

    use super::*;

    /// Flush to zero, subnormal numbers read as zero, and rounding up.
    #[cfg(target_arch = "x86_64")]
    const OTHER: control::Register = 0x1f80 | 1 << 15 | 1 << 6 | 2 << 13;
    #[cfg(target_arch = "aarch64")]
    const OTHER: control::Register = 1 << 24 | 1 << 22;

    #[test]
    fn the_default_mode_is_entered_and_the_one_before_comes_back() {
        let before = control::read();
        control::write(OTHER);
        let (inside, halved, third) = {
            let _mode = DefaultMode::enter();
            let inner = DefaultMode::enter();
            drop(inner);
            let halved = black_box(f64::MIN_POSITIVE) / black_box(2.0);
            (control::read(), halved, black_box(1.0_f64) / black_box(3.0))
        };
        let after = control::read();
        control::write(before);
        assert_eq!(inside & control::MODE, control::DEFAULT);
        assert_eq!(after, OTHER);
        assert_eq!((halved.to_bits(), third.to_bits()), (1 << 51, 0x3fd5_5555_5555_5555));
    }
}
