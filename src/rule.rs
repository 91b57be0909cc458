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
    fn check<F: Real>(&self, t: u64) -> Result<(), Unfit> {
        let mut unfit = Unfit::unless_finite::<F>("lr", self.step_size(t)).err();
        self.visit(|name, value| {
            let vanishes = name == "eps" && value != 0.0 && F::of(value) == F::ZERO;
            if vanishes || F::of(value).wide().is_infinite() {
                unfit = unfit.or(Some(Unfit { name, value }));
            }
        });
        unfit.map_or(Ok(()), Err)
    }
}

/// A number that a dtype can't hold: rounded to it, it is infinite, or zero where that is another thing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Unfit {
    /// What the number is.
    pub name: &'static str,
    /// The number.
    pub value: f64,
}

impl Unfit {
    /// Rounds a number to a dtype.
    ///
    /// # Errors
    /// If it is infinite there.
    pub fn unless_finite<F: Real>(name: &'static str, value: f64) -> Result<F, Self> {
        let rounded = F::of(value);
        if rounded.abs() <= F::MAX { Ok(rounded) } else { Err(Self { name, value }) }
    }
}

/// A factor that may be beyond `f64`: `significand · 2^exponent`, with a significand in [1, 2), or one that is zero, infinite or
/// NaN.
///
/// A product of factors is rounded as one of `f64` is, but it does not overflow or underflow on the way.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Factor {
    significand: f64,
    exponent: i32,
}

impl Factor {
    /// One.
    pub const ONE: Self = Self { significand: 1.0, exponent: 0 };

    /// A number times a power of two.
    #[must_use]
    pub fn new(number: f64, exponent: i32) -> Self {
        const FRACTION: u64 = (1 << 52) - 1;
        if number == 0.0 || !number.is_finite() {
            return Self { significand: number, exponent: 0 };
        }
        // A subnormal number has no exponent of its own.
        let (number, lift) = if number.abs() < f64::MIN_POSITIVE { (number * TWO_TO_54, 54) } else { (number, 0) };
        let bits = number.to_bits();
        let biased = i32::try_from((bits >> 52) & 0x7FF).unwrap_or_default();
        let significand = f64::from_bits(bits & (FRACTION | 1 << 63) | 1023 << 52);
        Self { significand, exponent: exponent + biased - 1023 - lift }
    }

    /// The product.
    #[must_use]
    pub fn times(self, other: Self) -> Self {
        Self::new(self.significand * other.significand, self.exponent + other.exponent)
    }

    /// The quotient.
    #[must_use]
    pub fn over(self, other: Self) -> Self {
        Self::new(self.significand / other.significand, self.exponent - other.exponent)
    }

    /// The exponent of a number: the largest power of two that is not larger.
    #[must_use]
    pub const fn exponent(self) -> i32 {
        self.exponent
    }

    /// The nearest `f64`.
    #[must_use]
    pub fn value(self) -> f64 {
        let near = self.exponent.clamp(-1022, 1023);
        // The first product is exact.
        self.significand * power_of_two(near) * power_of_two((self.exponent - near).clamp(-1022, 1023))
    }

    /// Whether it is a number, and at most this one.
    #[must_use]
    pub fn is_at_most(self, most: f64) -> bool {
        self.value() <= most
    }

    /// What gradients of this norm are multiplied by so that it is at most so large, in PyTorch's form.
    #[must_use]
    pub fn clipped_to(self, most: f64) -> Self {
        let (norm, one) = (self.value(), Self::ONE);
        // Beside a norm that `f64` does not reach, the term of PyTorch's form is nothing.
        let norm = if norm.is_finite() { Self::from(norm + 1e-6) } else { self };
        let coefficient = Self::from(most).over(norm);
        if coefficient.value() > 1.0 { one } else { coefficient }
    }

    /// The negative.
    #[must_use]
    pub fn negated(self) -> Self {
        Self { significand: -self.significand, ..self }
    }

    /// Two factors to multiply by, one after the other, which overflow or vanish only if every product does. The second is left
    /// out where one is enough.
    ///
    /// # Errors
    /// If two are not enough.
    pub fn split<F: Real>(self) -> Result<(F, Option<F>), Unfit> {
        let whole = F::of(self.value());
        let is_number = self.significand != 0.0 && self.significand.is_finite();
        if !is_number || (whole.abs() >= F::MIN_POSITIVE && whole.abs() <= F::MAX) {
            return Ok((whole, None));
        }
        // Multiplied by a power of two, a number stays exact unless it overflows or underflows: what is small grows first, and what
        // is large shrinks last.
        let most = F::MAX_EXPONENT;
        let part = |exponent| F::of(Self { significand: self.significand, exponent }.value());
        let power = |exponent| F::of(power_of_two(exponent));
        if self.exponent < 0 {
            return Ok((part(self.exponent + most - 1), Some(power(1 - most))));
        }
        let rest = part(self.exponent - most);
        if rest.abs() <= F::MAX {
            Ok((power(most), Some(rest)))
        } else {
            Err(Unfit { name: "the factor of the gradients", value: self.value() })
        }
    }
}

impl From<f64> for Factor {
    fn from(number: f64) -> Self {
        Self::new(number, 0)
    }
}

const TWO_TO_54: f64 = 18_014_398_509_481_984.0;

/// Two to a power from -1022 to 1023.
fn power_of_two(exponent: i32) -> f64 {
    f64::from_bits(u64::from((exponent + 1023).unsigned_abs()) << 52)
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

/// `base` to the power `exponent`, correctly rounded but for one case in about 2⁴⁰.
///
/// The power is computed, never accumulated over steps, and in additions and multiplications alone, so that it has the
/// same bits on every machine: a C library's `pow` differs between platforms. `base` is in [0, 1].
#[must_use]
pub fn power(base: f64, mut exponent: u64) -> f64 {
    let mut square = Double { high: base, low: 0.0 };
    let mut product = Double { high: 1.0, low: 0.0 };
    while exponent > 0 && product.high > 0.0 {
        if exponent & 1 == 1 {
            product = product.times(square);
        }
        square = square.times(square);
        exponent >>= 1;
    }
    product.high
}

/// An unevaluated sum of two `f64`, about 106 bits (Dekker, 1971).
#[derive(Clone, Copy)]
struct Double {
    high: f64,
    low: f64,
}

impl Double {
    fn times(self, other: Self) -> Self {
        let (product, error) = exact_product(self.high, other.high);
        let low = error + (self.high * other.low + self.low * other.high);
        let high = product + low;
        Self { high, low: low - (high - product) }
    }
}

/// The product and its rounding error, exactly unless the error underflows.
fn exact_product(a: f64, b: f64) -> (f64, f64) {
    let product = a * b;
    let ((a1, a2), (b1, b2)) = (halves(a), halves(b));
    (product, ((a1 * b1 - product) + a1 * b2 + a2 * b1) + a2 * b2)
}

/// A number as the sum of two with half as many bits each (Veltkamp).
fn halves(x: f64) -> (f64, f64) {
    let scaled = x * 134_217_729.0; // 2²⁷ + 1
    let high = scaled - (scaled - x);
    (high, x - high)
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
    fn factors_round_as_numbers_do_and_go_beyond_them() {
        for a in [1.0, -3.7, 1e300, 5e-324, 2.5e-310, f64::MAX, f64::MIN_POSITIVE] {
            assert_eq!(Factor::from(a).value().to_bits(), a.to_bits());
            for b in [1.0, 0.3, 1e-20, 7e8] {
                assert!(Factor::from(a).times(b.into()).over(b.into()).value().is_finite());
                if (a * b).is_normal() && a.is_normal() {
                    assert_eq!(Factor::from(a).times(b.into()).value().to_bits(), (a * b).to_bits());
                }
            }
        }
        let beyond = Factor::from(1e300).times(1e300.into());
        assert!(beyond.value().is_infinite());
        assert!((beyond.over(1e300.into()).over(1e299.into()).value() - 10.0).abs() < 1e-14);
        assert_eq!(Factor::ONE.over(f64::INFINITY.into()).value().to_bits(), 0);
        assert!(Factor::from(f64::NAN).times(1.0.into()).value().is_nan());
    }

    #[test]
    fn a_factor_is_split_where_one_number_is_not_enough() {
        assert_eq!(Factor::from(0.3).split::<f32>(), Ok((0.3, None)));
        assert_eq!(Factor::from(0.0).split::<f32>(), Ok((0.0, None)));
        let applied = |factor: f64, grad: f32| {
            let (first, second) = Factor::from(factor).split::<f32>().unwrap_or((f32::NAN, None));
            grad * first * second.unwrap_or(1.0)
        };
        for (factor, grad, expected) in [(1e40, 1e-38, 100.0), (1e-46, 1e38, 1e-8), (-1e-60, 1e35, -1e-25_f32)] {
            assert!((applied(factor, grad) / expected - 1.0).abs() < 1e-6);
        }
        assert_eq!(applied(1e40, 0.0).to_bits(), 0);
        assert!(Factor::from(1e90).split::<f32>().is_err());
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
    fn power_is_exact_where_the_result_is() {
        assert_eq!(power(0.5, 1000).to_bits(), (2.0_f64).powi(-1000).to_bits());
        assert_eq!(power(0.9, 0).to_bits(), 1.0_f64.to_bits());
        assert_eq!(power(0.0, 3).to_bits(), 0.0_f64.to_bits());
        assert_eq!(power(1.0, u64::MAX).to_bits(), 1.0_f64.to_bits());
        assert_eq!(power(0.999, u64::MAX).to_bits(), 0.0_f64.to_bits());
    }

    #[test]
    fn power_has_no_accumulated_error() {
        // 0.999^100000, to 17 digits by exact rational arithmetic.
        assert_eq!(power(0.999, 100_000).to_bits(), 3.538_527_688_343_127_5e-44_f64.to_bits());
    }
}
