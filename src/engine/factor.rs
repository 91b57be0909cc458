//! Factors of gradients, with an exponent of 32 bits.
//!
//! A gradient is multiplied by the clip coefficient and divided by the loss scale. Their product may leave the range of `f64`, or of
//! the dtype, where every gradient times it does not.

use crate::rule::{OutOfRange, Real};

/// `significand · 2^exponent`, with a significand in ±[1, 2), or one that is zero, infinite or NaN.
///
/// Products round like those of `f64`, but do not overflow or underflow.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Factor {
    significand: f64,
    exponent: i32,
}

impl Factor {
    /// One.
    pub const ONE: Self = Self { significand: 1.0, exponent: 0 };

    /// `number · 2^exponent`.
    #[must_use]
    pub fn new(number: f64, exponent: i32) -> Self {
        const FRACTION: u64 = (1 << 52) - 1;
        if number == 0.0 || !number.is_finite() {
            return Self { significand: number, exponent: 0 };
        }
        // Subnormal numbers have no exponent of their own.
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

    /// The exponent of the largest power of two that is at most the magnitude.
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

    /// Whether it is at most `most`, and not NaN.
    #[must_use]
    pub fn is_at_most(self, most: f64) -> bool {
        self.value() <= most
    }

    /// The clip coefficient of gradients with this norm, in PyTorch's form: `min(most / (norm + 1e-6), 1)`.
    #[must_use]
    pub fn clipped_to(self, most: f64) -> Self {
        let norm = self.value();
        // 1e-6 changes no norm beyond `f64`.
        let norm = if norm.is_finite() { Self::from(norm + 1e-6) } else { self };
        let coefficient = Self::from(most).over(norm);
        if coefficient.value() > 1.0 { Self::ONE } else { coefficient }
    }

    /// The negative.
    #[must_use]
    pub fn negated(self) -> Self {
        Self { significand: -self.significand, ..self }
    }

    /// One number of the dtype to multiply by, or two, one after the other, where one would overflow or underflow.
    ///
    /// # Errors
    /// If two are not enough.
    pub fn split<F: Real>(self) -> Result<(F, Option<F>), OutOfRange> {
        let whole = F::of(self.value());
        let is_number = self.significand != 0.0 && self.significand.is_finite();
        if !is_number || (whole.abs() >= F::MIN_POSITIVE && whole.abs() <= F::MAX) {
            return Ok((whole, None));
        }
        // Products with a power of two are exact unless they overflow or underflow: a small gradient grows first, a large one
        // shrinks last.
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
            Err(OutOfRange { name: "the factor of the gradients", value: self.value() })
        }
    }
}

impl From<f64> for Factor {
    fn from(number: f64) -> Self {
        Self::new(number, 0)
    }
}

const TWO_TO_54: f64 = 18_014_398_509_481_984.0;

/// `2^exponent`, for exponents from −1022 to 1023.
fn power_of_two(exponent: i32) -> f64 {
    f64::from_bits(u64::from((exponent + 1023).unsigned_abs()) << 52)
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
