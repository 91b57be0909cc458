//! Averages of the weight over steps: how much of the present weight enters one.

/// An average of the weight.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Average {
    /// Exponential: `a ← lerp(a, θ, 1 − d)`.
    Ema {
        /// d, the share of the average that is kept.
        decay: f64,
        /// Whether less is kept at first: at most `(1 + n) / (10 + n)` when it has seen `n` weights.
        warmup: bool,
    },
    /// Equal: the mean of the weights after step `start` and every so many steps from there.
    Swa {
        /// The first step that counts, from 1.
        start: u64,
        /// Steps from one that counts to the next.
        every: u64,
    },
}

impl Average {
    /// How much of the weight after a step, counted from 1, enters an average that has seen `seen` weights; `None` if the step
    /// does not count. The first weight enters whole.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "counts beyond 2⁵³ change no bit of the share")]
    pub fn coefficient(self, step: u64, seen: u64) -> Option<f64> {
        let n = seen as f64;
        match self {
            Self::Ema { .. } if seen == 0 => Some(1.0),
            Self::Ema { decay, warmup: false } => Some(1.0 - decay),
            Self::Ema { decay, warmup: true } => Some(1.0 - decay.min((1.0 + n) / (10.0 + n))),
            Self::Swa { start, every } => {
                (step >= start && (step - start).is_multiple_of(every)).then(|| 1.0 / (n + 1.0))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_equal_average_counts_from_its_start() {
        let average = Average::Swa { start: 3, every: 2 };
        let shares: Vec<_> = (1..=7).map(|step| average.coefficient(step, 1)).collect();
        assert_eq!(shares, [None, None, Some(0.5), None, Some(0.5), None, Some(0.5)]);
    }

    #[test]
    fn an_exponential_average_warms_up() {
        let average = Average::Ema { decay: 0.9, warmup: true };
        let close =
            |seen, expected: f64| assert!((average.coefficient(1, seen).unwrap_or(0.0) - expected).abs() < 1e-15);
        close(0, 1.0);
        close(1, 1.0 - 2.0 / 11.0);
        close(1000, 0.1);
    }
}
