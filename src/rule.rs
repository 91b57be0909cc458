//! What an update rule is, and the arithmetic that rules share.
//!
//! ```text
//! Optimizer     hyperparameters in f64            Adam { lr, beta1, beta2, eps }
//!    at(t)      computes what depends on the step alone, and rounds it to the dtype
//! Rule          updates one weight                (weight, grad, [m, v]) → (weight, [m, v])
//! ```
//!
//! Rules are plain arithmetic over a [`Real`]. Arrays, tails, threads, instruction sets, stored formats and Python belong to the
//! engine and the bindings.

use std::fmt::Debug;
use std::ops::{Add, Div, Mul, Neg, Sub};

/// The number type that a rule computes in: `f32` or `f64`.
///
/// Every operation is exact or correctly rounded, so a rule has the same bits at every instruction set. There is no fused
/// multiply-add, on purpose.
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

    /// Zero for magnitudes below a threshold, else the number.
    #[inline(always)]
    #[must_use]
    fn flush_below(self, threshold: Self) -> Self {
        if self.abs() < threshold { Self::ZERO } else { self }
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

/// The update of one weight at one step. Methods are `#[inline(always)]`, so that they are compiled for each instruction set
/// with the loop around them.
pub trait Rule<F: Real, const N: usize>: Copy + Send + Sync + 'static {
    /// Whether it divides or takes roots, which some machines do slower in a 512-bit vector than in two of 256 bits.
    const DIVIDES: bool = true;

    /// Returns the new weight and state.
    fn apply(self, weight: F, grad: F, state: [F; N]) -> (F, [F; N]);

    /// Returns the state as it is stored: with zero for subnormal numbers, which are slow, and in which every decaying average ends.
    /// Rules in which this would change weights override it, with [`flush_threshold`].
    #[inline(always)]
    fn flush(self, state: [F; N]) -> [F; N] {
        state.map(|number| number.flush_below(F::MIN_POSITIVE))
    }
}

/// The magnitude below which `v` is stored as zero in a rule that divides by `√v + ε` and computes `v ← β v + take g²`.
///
/// While every addition is flushed, `v` stays zero instead of growing to at most the smallest normal number over `take`. If the
/// root of that does not vanish beside ε in rounding, nothing is flushed.
#[must_use]
pub fn flush_threshold<F: Real>(eps: f64, take: f64) -> F {
    let least = (F::MIN_POSITIVE.wide() / take).sqrt() * 4.0 / F::EPSILON.wide();
    if eps >= least { F::MIN_POSITIVE } else { F::ZERO }
}

/// Hyperparameters in `f64`, and the rule that they make at a step.
pub trait Optimizer<const N: usize>: Hyperparameters {
    /// The names of the state arrays, in PyTorch's spelling.
    const STATE: [&'static str; N];
    /// The rule of one step.
    type Rule<F: Real>: Rule<F, N>;

    /// The rule of step `t`, counted from 1. Everything that depends on the step alone is computed here, in `f64`.
    fn at<F: Real>(&self, t: u64) -> Self::Rule<F>;

    /// The initial value of each state array.
    fn initial(&self) -> [f64; N] {
        [0.0; N]
    }

    /// A coefficient that `at` computes and that may overflow where no hyperparameter does, such as `lr / (1 − β₁ᵗ)`.
    /// [`check`](Self::check) refuses an infinite one.
    fn step_size(&self, _t: u64) -> f64 {
        1.0
    }

    /// Checks the hyperparameters of step `t` against the range of a dtype.
    ///
    /// # Errors
    /// If one is not finite in the dtype, or `eps` is rounded to zero.
    fn check<F: Real>(&self, t: u64) -> Result<(), OutOfRange> {
        let mut error = round_finite::<F>("lr", self.step_size(t)).err();
        self.visit(|name, value| {
            let vanishes = name == "eps" && value != 0.0 && F::of(value) == F::ZERO;
            if vanishes || !F::of(value).wide().is_finite() {
                error = error.or(Some(OutOfRange { name, value }));
            }
        });
        error.map_or(Ok(()), Err)
    }
}

/// An error: a number that is infinite in a dtype, or zero where zero has another meaning.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OutOfRange {
    /// The name of the number.
    pub name: &'static str,
    /// The number.
    pub value: f64,
}

/// Rounds a number to a dtype.
///
/// # Errors
/// If it is infinite there, or NaN.
pub fn round_finite<F: Real>(name: &'static str, value: f64) -> Result<F, OutOfRange> {
    let rounded = F::of(value);
    if rounded.abs() <= F::MAX { Ok(rounded) } else { Err(OutOfRange { name, value }) }
}

/// A named set of `f64` hyperparameters; implemented by [`hyperparameters!`](crate::rule::hyperparameters).
pub trait Hyperparameters: Copy + Send + Sync + 'static {
    /// The names, in the order that [`Hyperparameters::from_values`] takes them.
    const NAMES: &'static [&'static str] = &[];

    /// From one value for each name; `None` if there are more or fewer.
    fn from_values(values: &[f64]) -> Option<Self>;

    /// Calls `visit(name, value)` for each.
    fn visit(&self, _visit: impl FnMut(&'static str, f64)) {}
}

/// Declares a struct of `f64` fields with [`Hyperparameters`]. Variants with another formula are `bool` parameters of the type, so
/// that each is compiled separately.
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

/// Linear interpolation `a + w (b − a)`, computed from the nearer end, so that `w = 1` gives exactly `b`. As `torch.lerp`.
#[derive(Clone, Copy, Debug)]
pub struct Lerp<F> {
    from_start: bool,
    coefficient: F,
}

impl<F: Real> Lerp<F> {
    /// The interpolation with weight `w`.
    #[must_use]
    pub fn new(w: f64) -> Self {
        let from_start = w.abs() < 0.5;
        let coefficient = F::of(if from_start { w } else { 1.0 - w });
        Self { from_start, coefficient }
    }

    /// Interpolates between `a` and `b`. The branch is the same for every element: one predicted jump per vector.
    #[inline(always)]
    #[must_use]
    pub fn between(self, a: F, b: F) -> F {
        if self.from_start { a + self.coefficient * (b - a) } else { b - (b - a) * self.coefficient }
    }
}

/// `1 − base ^ exponent`, the bias correction of a running average, for a base in [0, 1]. The power is rounded to the nearest `f64`
/// first, except in one case in about 2⁴⁰.
///
/// It is computed in integers, so it has the same bits on every machine: `pow` of C libraries differs between platforms. The power is
/// the product of the squares `base, base², base⁴, …` at the 1 bits of the exponent, in units of 2⁻¹²⁷. Such a product takes 10
/// cycles, one of the same precision in `f64` 40.
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

/// The product of two numbers up to 1, in units of 2⁻¹²⁷; less than 6 units too small.
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
        assert_eq!(flush_threshold::<f32>(1e-8, 1e-3).to_bits(), f32::MIN_POSITIVE.to_bits());
        assert_eq!(flush_threshold::<f64>(1e-8, 1e-3).to_bits(), f64::MIN_POSITIVE.to_bits());
        for eps in [1e-10, 1e-18, 0.0] {
            assert_eq!(flush_threshold::<f32>(eps, 1e-3).to_bits(), 0);
        }
        assert_eq!(flush_threshold::<f32>(1e-8, 0.0).to_bits(), 0);
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
