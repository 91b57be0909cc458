//! What an update rule is.
//!
//! A [`Rule`] says how one weight moves, in plain arithmetic over a [`Real`]. An [`Optimizer`] holds hyperparameters as
//! the user gives them and folds everything that depends on the step alone into a rule. Both know nothing about arrays,
//! tails, threads, instruction sets, storage formats or Python: the engine handles those.

use std::fmt::Debug;
use std::ops::{Add, Div, Mul, Neg, Sub};

/// The number type that a rule computes in: `f32` or `f64`.
///
/// Every operation is one correctly rounded IEEE 754 operation, or exact, so that a rule has the same bits at every
/// instruction set. There is deliberately no fused multiply-add here.
pub trait Real:
    Copy
    + Debug
    + PartialOrd
    + Send
    + Sync
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
    + 'static
{
    /// Zero.
    const ZERO: Self;
    /// One.
    const ONE: Self;
    /// The smallest positive normal number.
    const MIN_POSITIVE: Self;
    /// The largest finite number.
    const MAX: Self;
    /// The distance from 1 to the next number.
    const EPSILON: Self;
    /// The exponent of [`MAX`](Self::MAX): 1 ≤ `MAX` / 2^`MAX_EXPONENT` < 2.
    const MAX_EXPONENT: i32;

    /// The nearest number of this type.
    #[must_use]
    fn of(value: f64) -> Self;
    /// The number as `f64`, exactly.
    #[must_use]
    fn wide(self) -> f64;
    /// The square root, correctly rounded.
    #[must_use]
    fn sqrt(self) -> Self;
    /// The absolute value.
    #[must_use]
    fn abs(self) -> Self;

    /// The larger of two numbers, or NaN if either is NaN.
    #[inline(always)]
    #[must_use]
    #[expect(clippy::eq_op, reason = "x != x is NaN, and compiles to one vector comparison")]
    fn max_or_nan(self, other: Self) -> Self {
        if self != self || self >= other { self } else { other }
    }

    /// The nearest number from `low` to `high`; NaN stays.
    #[inline(always)]
    #[must_use]
    fn clamp_or_nan(self, low: Self, high: Self) -> Self {
        if self > high {
            high
        } else if self < low {
            low
        } else {
            self
        }
    }

    /// Zero in place of a number below a floor.
    #[inline(always)]
    #[must_use]
    fn flush_below(self, floor: Self) -> Self {
        if self.abs() < floor { Self::ZERO } else { self }
    }
}

macro_rules! real {
    ($($type:ident from $of:expr),*) => {$(
        impl Real for $type {
            const ZERO: Self = 0.0;
            const ONE: Self = 1.0;
            const MIN_POSITIVE: Self = $type::MIN_POSITIVE;
            const MAX: Self = $type::MAX;
            const EPSILON: Self = $type::EPSILON;
            const MAX_EXPONENT: i32 = $type::MAX_EXP - 1;

            #[inline(always)]
            fn of(value: f64) -> Self {
                $of(value)
            }
            #[inline(always)]
            fn wide(self) -> f64 {
                f64::from(self)
            }
            #[inline(always)]
            fn sqrt(self) -> Self {
                self.sqrt()
            }
            #[inline(always)]
            fn abs(self) -> Self {
                self.abs()
            }
        }
    )*};
}
real!(f32 from nearest_f32, f64 from f64::from);

#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "rounding is the purpose")]
const fn nearest_f32(value: f64) -> f32 {
    value as f32
}

/// How one weight moves. Implementations are a few lines of arithmetic, marked `#[inline(always)]` so that the loop
/// around them is compiled for each instruction set.
pub trait Rule<F: Real, const N: usize>: Copy + Send + Sync + 'static {
    /// Whether it divides or takes roots. Some machines do that slower in 512-bit vectors than in two of 256 bits.
    const DIVIDES: bool = true;

    /// The new weight and state, from the weight, its gradient and its state.
    fn apply(self, weight: F, grad: F, state: [F; N]) -> (F, [F; N]);

    /// The state as it is stored: with zero in place of subnormal numbers, which make arithmetic slow, and in which a decaying
    /// average ends. A rule in which that would be seen says otherwise, by [`floor`].
    #[inline(always)]
    fn flush(self, state: [F; N]) -> [F; N] {
        state.map(|number| number.flush_below(F::MIN_POSITIVE))
    }
}

/// Below which state of a rule is stored as zero, if it divides by `√v + ε` and adds the share `take` of g² to `v` at each step.
///
/// As long as each addition to `v` is flushed, it stays zero and lacks as much as the smallest normal number over `take`. The root of
/// that must vanish beside ε, rounded; otherwise nothing is flushed.
#[must_use]
pub fn floor<F: Real>(eps: f64, take: f64) -> F {
    let least = (F::MIN_POSITIVE.wide() / take).sqrt() * 4.0 / F::EPSILON.wide();
    if eps >= least { F::MIN_POSITIVE } else { F::ZERO }
}

/// Hyperparameters as the user gives them, and the rule that they fold into at a step.
pub trait Optimizer<const N: usize>: Hyperparameters {
    /// The names of the state arrays, as PyTorch spells them.
    const STATE: [&'static str; N];
    /// The rule of one step.
    type Rule<F: Real>: Rule<F, N>;

    /// The rule of step `t`, counted from 1. Everything that depends on the step alone is folded here, in `f64`.
    fn at<F: Real>(&self, t: u64) -> Self::Rule<F>;

    /// The value that each state array is filled with before the first step.
    fn initial(&self) -> [f64; N] {
        [0.0; N]
    }

    /// The learning rate of step `t` as the rule multiplies by it, if there is one; any other where both are in the range of every
    /// dtype.
    fn step_size(&self, _t: u64) -> f64 {
        1.0
    }

    /// Checks that the hyperparameters can be computed with in a dtype at step `t`.
    ///
    /// # Errors
    /// If one is infinite in it, or ε zero though it is not.
    fn check<F: Real>(&self, t: u64) -> Result<(), OutOfRange> {
        let mut unfit = OutOfRange::unless_finite::<F>("lr", self.step_size(t)).err();
        self.visit(|name, value| {
            let vanishes = name == "eps" && value != 0.0 && F::of(value) == F::ZERO;
            if vanishes || F::of(value).wide().is_infinite() {
                unfit = unfit.or(Some(OutOfRange { name, value }));
            }
        });
        unfit.map_or(Ok(()), Err)
    }
}

/// A number that a dtype can't hold: rounded to it, it is infinite, or zero where that is another thing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OutOfRange {
    /// What the number is.
    pub name: &'static str,
    /// The number.
    pub value: f64,
}

impl OutOfRange {
    /// Rounds a number to a dtype.
    ///
    /// # Errors
    /// If it is infinite there.
    pub fn unless_finite<F: Real>(name: &'static str, value: f64) -> Result<F, Self> {
        let rounded = F::of(value);
        if rounded.abs() <= F::MAX { Ok(rounded) } else { Err(Self { name, value }) }
    }
}

/// A named set of `f64` hyperparameters; implemented by [`hyperparameters!`](crate::rule::hyperparameters).
pub trait Hyperparameters: Copy + Send + Sync + 'static {
    /// The names, in the order that [`Hyperparameters::from_values`] takes them.
    const NAMES: &'static [&'static str];

    /// From one value for each name, or `None` if their number differs.
    fn from_values(values: &[f64]) -> Option<Self>;

    /// Calls `visit(name, value)` for each.
    fn visit(&self, visit: impl FnMut(&'static str, f64));
}

/// Declares a struct of `f64` fields and implements [`Hyperparameters`] for it. Forms of a rule that differ in their
/// formula are `bool` parameters of the type, so that each is compiled on its own.
macro_rules! hyperparameters {
    (
        $(#[$doc:meta])*
        pub struct $name:ident $(<$(const $form:ident: bool),*>)? { $($(#[$field_doc:meta])* $field:ident),* $(,)? }
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq)]
        pub struct $name $(<$(const $form: bool),*>)? {
            $($(#[$field_doc])* pub $field: f64,)*
        }

        impl $(<$(const $form: bool),*>)? $crate::rule::Hyperparameters for $name $(<$($form),*>)? {
            const NAMES: &'static [&'static str] = &[$(stringify!($field)),*];

            fn from_values(values: &[f64]) -> Option<Self> {
                let &[$($field),*] = values else { return None };
                Some(Self { $($field),* })
            }

            fn visit(&self, mut visit: impl FnMut(&'static str, f64)) {
                $(visit(stringify!($field), self.$field);)*
            }
        }
    };
}
pub(crate) use hyperparameters;

/// Linear interpolation `a + w (b - a)`, computed from the nearer end so that `w = 1` gives `b` exactly.
#[derive(Clone, Copy, Debug)]
pub struct Lerp<F> {
    from_start: bool,
    coefficient: F,
}

impl<F: Real> Lerp<F> {
    /// The interpolation by the share `weight`.
    #[must_use]
    pub fn new(weight: f64) -> Self {
        let from_start = weight.abs() < 0.5;
        // From the end: b - (b - a) (1 - w).
        let coefficient = F::of(if from_start { weight } else { 1.0 - weight });
        Self { from_start, coefficient }
    }

    /// The point between `a` and `b`. The branch is the same for every element, and is taken out of the loop.
    #[inline(always)]
    #[must_use]
    pub fn between(self, a: F, b: F) -> F {
        if self.from_start { a + self.coefficient * (b - a) } else { b - (b - a) * self.coefficient }
    }
}

/// `1 − base ^ exponent`, the bias correction of a running average, with the power rounded to the nearest `f64` first (but for one
/// case in about 2⁴⁰). `base` is in [0, 1].
///
/// The power is computed, never accumulated over steps, and in integers alone, so that it has the same bits on every machine: a C
/// library's `pow` differs between platforms. It is the product of those of the squares `base, base², base⁴, …` that the bits of
/// the exponent name, each a number of 2⁻¹²⁷ths. A product of such numbers takes 10 cycles, one of the same precision in `f64` 40.
#[must_use]
#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "see below")]
pub fn one_minus_power(base: f64, mut exponent: u64) -> f64 {
    const ONE: u128 = 1 << 127;
    /// A power below this, 2⁻⁵⁶, leaves 1.
    const NEGLIGIBLE: u128 = ONE >> 56;
    // Exact, unless the base is so small that it is negligible.
    let mut square = (base * ONE as f64) as u128;
    let mut power = ONE;
    while exponent > 0 {
        if square < NEGLIGIBLE {
            return 1.0;
        }
        if exponent & 1 == 1 {
            power = product_of_fractions(power, square);
        }
        square = product_of_fractions(square, square);
        exponent >>= 1;
    }
    // The cast rounds to the nearest, and the division is exact.
    1.0 - power as f64 / ONE as f64
}

/// The product of two numbers of 2⁻¹²⁷ths that are at most 1. It is less than 6 of them too small.
fn product_of_fractions(a: u128, b: u128) -> u128 {
    const LOW: u128 = u64::MAX as u128;
    let ((a_high, a_low), (b_high, b_low)) = ((a >> 64, a & LOW), (b >> 64, b & LOW));
    (a_high * b_high + ((a_high * b_low) >> 64) + ((a_low * b_high) >> 64)) << 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn max_or_nan_is_nan_if_either_is() {
        assert!(f32::NAN.max_or_nan(1.0).is_nan());
        assert!(1.0_f32.max_or_nan(f32::NAN).is_nan());
        assert_eq!(1.0_f64.max_or_nan(2.0).to_bits(), 2.0_f64.to_bits());
    }

    #[test]
    fn flush_zeroes_subnormals_and_nothing_else() {
        for kept in [f32::MIN_POSITIVE, -f32::MIN_POSITIVE, 1.0, f32::INFINITY, f32::MAX] {
            assert_eq!(kept.flush_below(f32::MIN_POSITIVE).to_bits(), kept.to_bits());
        }
        for zeroed in [f32::MIN_POSITIVE / 2.0, -f32::MIN_POSITIVE / 2.0, 1e-45, -0.0, 0.0] {
            assert_eq!(zeroed.flush_below(f32::MIN_POSITIVE).to_bits(), 0);
            assert_eq!(zeroed.flush_below(0.0).to_bits(), zeroed.to_bits());
        }
        assert!(f32::NAN.flush_below(f32::MIN_POSITIVE).is_nan());
    }

    #[test]
    fn state_is_flushed_where_eps_hides_it() {
        assert_eq!(floor::<f32>(1e-8, 1e-3).to_bits(), f32::MIN_POSITIVE.to_bits());
        assert_eq!(floor::<f64>(1e-8, 1e-3).to_bits(), f64::MIN_POSITIVE.to_bits());
        for eps in [1e-10, 1e-18, 0.0] {
            assert_eq!(floor::<f32>(eps, 1e-3).to_bits(), 0);
        }
        assert_eq!(floor::<f32>(1e-8, 0.0).to_bits(), 0);
    }

    #[test]
    fn clamping_keeps_nan() {
        assert!(f32::NAN.clamp_or_nan(-1.0, 1.0).is_nan());
        assert_eq!((-2.0_f32).clamp_or_nan(-1.0, 1.0).to_bits(), (-1.0_f32).to_bits());
        assert_eq!(f64::INFINITY.clamp_or_nan(-1.0, 1.0).to_bits(), 1.0_f64.to_bits());
        assert_eq!((-0.0_f64).clamp_or_nan(-1.0, 1.0).to_bits(), (-0.0_f64).to_bits());
    }

    #[test]
    fn lerp_reaches_its_end_exactly() {
        assert_eq!(Lerp::<f64>::new(1.0).between(1e20, 1.0).to_bits(), 1.0_f64.to_bits());
        assert_eq!(Lerp::<f64>::new(0.0).between(1e20, 1.0).to_bits(), 1e20_f64.to_bits());
    }

    #[test]
    fn one_minus_a_power_is_exact_where_the_result_is() {
        assert_eq!(one_minus_power(0.5, 1).to_bits(), 0.5_f64.to_bits());
        assert_eq!(one_minus_power(0.5, 1000).to_bits(), 1.0_f64.to_bits());
        assert_eq!(one_minus_power(0.9, 0).to_bits(), 0.0_f64.to_bits());
        assert_eq!(one_minus_power(0.0, 3).to_bits(), 1.0_f64.to_bits());
        assert_eq!(one_minus_power(1.0, u64::MAX).to_bits(), 0.0_f64.to_bits());
        assert_eq!(one_minus_power(0.999, u64::MAX).to_bits(), 1.0_f64.to_bits());
        assert_eq!(one_minus_power(5e-324, 1).to_bits(), 1.0_f64.to_bits());
    }

    #[test]
    fn one_minus_a_power_has_no_accumulated_error() {
        // The powers are rounded from exact rational arithmetic.
        let powers = [
            (0.9, 3, 0.729_000_000_000_000_1),
            (0.9, 100, 2.656_139_888_758_754_4e-5),
            (0.95, 17, 0.418_120_335_219_177_1),
            (0.999, 10, 0.990_044_880_209_748_2),
            (0.999, 1000, 0.367_695_424_770_963_73),
            (0.999, 20_000, 2.040_631_186_762_100_7e-9),
            (0.999_999, 100_000, 0.904_837_372_791_457_7),
            (1.0 - f64::EPSILON / 2.0, 1 << 20, 0.999_999_999_883_584_7_f64),
        ];
        for (base, exponent, power) in powers {
            assert_eq!(one_minus_power(base, exponent).to_bits(), (1.0 - power).to_bits());
        }
    }
}
