//! The floating-point mode of a thread: rounding, and the treatment of subnormal numbers.
//!
//! `torch.set_flush_denormal(True)` changes the mode of the calling thread, and threads inherit the mode of the one that starts
//! them. For the same bits everywhere the engine computes in the default mode of a program, which is also the only one that
//! Rust's arithmetic is defined for: rounding to nearest, subnormal numbers kept. Reading the register takes a nanosecond.

use std::marker::PhantomData;

/// Guard: the calling thread computes in the default mode until this is dropped.
#[derive(Debug)]
pub struct DefaultMode {
    /// The control register before, if it was not in the default mode.
    before: Option<control::Register>,
    /// Not `Send`: a mode belongs to a thread.
    thread: PhantomData<*const ()>,
}

impl DefaultMode {
    /// Enters the default mode.
    #[inline]
    #[must_use]
    pub fn enter() -> Self {
        let before = control::read();
        let is_default = before & control::MODE == control::DEFAULT;
        if !is_default {
            control::write(before & !control::MODE | control::DEFAULT);
        }
        Self { before: (!is_default).then_some(before), thread: PhantomData }
    }
}

impl Drop for DefaultMode {
    #[inline]
    fn drop(&mut self) {
        if let Some(before) = self.before {
            control::write(before);
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod control {
    use std::arch::asm;

    pub(super) type Register = u32;
    /// The bits of MXCSR without the exception flags.
    pub(super) const MODE: Register = 0xffc0;
    /// All exceptions masked.
    pub(super) const DEFAULT: Register = 0x1f80;

    #[inline]
    pub(super) fn read() -> Register {
        let mut value: Register = 0;
        // SAFETY: it writes four bytes to a local variable.
        unsafe { asm!("stmxcsr [{}]", in(reg) &raw mut value, options(nostack, preserves_flags)) };
        value
    }

    #[inline]
    pub(super) fn write(value: Register) {
        // SAFETY: it reads four bytes, in which reserved bits are as they were read.
        unsafe { asm!("ldmxcsr [{}]", in(reg) &raw const value, options(nostack, preserves_flags)) };
    }
}

#[cfg(target_arch = "aarch64")]
mod control {
    use std::arch::asm;

    pub(super) type Register = u64;
    /// All of FPCR, which has no exception flags.
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
        // SAFETY: every program may write it, with the default or the value before. Without `nomem` the compiler moves no
        // access to memory across it.
        unsafe { asm!("msr fpcr, {}", in(reg) value, options(nostack, preserves_flags)) };
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
mod control {
    //! On other processors the mode is assumed to be the default.

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

    /// Subnormal results and operands are zero, and rounding is upwards.
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
