//! Averages of the weight over steps.

/// An average of the weight.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Average {
    /// Exponential moving average: `a ← lerp(a, θ, 1 − d)`.
    Ema {
        /// d
        decay: f64,
        /// Whether d is at most `(1 + n) / (10 + n)` for an average of `n` weights.
        warmup: bool,
    },
    /// Stochastic weight averaging: the mean of the weights after step `start` and every `every` steps from there.
    Swa {
        /// The first step that is averaged, counted from 1.
        start: u64,
        /// Steps from one averaged weight to the next.
        every: u64,
    },
}

impl Average {
    /// The coefficient `c` of `a ← lerp(a, θ, c)` after a step, counted from 1, for an average of `n_averaged` weights; `None` if
    /// the step is not averaged. It is 1 for the first weight.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "counts beyond 2⁵³ change no bit of the coefficient")]
    pub fn coefficient(self, step: u64, n_averaged: u64) -> Option<f64> {
        let n = n_averaged as f64;
        match self {
            Self::Ema { .. } if n_averaged == 0 => Some(1.0),
            Self::Ema { decay, warmup: false } => Some(1.0 - decay),
            Self::Ema { decay, warmup: true } => Some(1.0 - decay.min((1.0 + n) / (10.0 + n))),
            Self::Swa { .. } => self.includes(step).then(|| 1.0 / (n + 1.0)),
        }
    }

    /// Whether a step, counted from 1, is averaged.
    #[must_use]
    pub fn includes(self, step: u64) -> bool {
        match self {
            Self::Ema { .. } => true,
            Self::Swa { start, every } => step >= start && (step - start).is_multiple_of(every),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn swa_averages_from_its_start() {
        let average = Average::Swa { start: 3, every: 2 };
        let coefficients: Vec<_> = (1..=7).map(|step| average.coefficient(step, 1)).collect();
        assert_eq!(coefficients, [None, None, Some(0.5), None, Some(0.5), None, Some(0.5)]);
    }

    #[test]
    fn ema_warms_up() {
        let average = Average::Ema { decay: 0.9, warmup: true };
        let close = |n, expected: f64| assert!((average.coefficient(1, n).unwrap_or(0.0) - expected).abs() < 1e-15);
        close(0, 1.0);
        close(1, 1.0 - 2.0 / 11.0);
        close(1000, 0.1);
    }
}
