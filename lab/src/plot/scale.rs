//! From values to places on the page, with round numbers at the ticks.

/// Intervals of a vertical axis; the same on both sides, so that one grid serves both.
const INTERVALS: u32 = 5;

/// A linear scale.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Scale {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
    step: f64,
}

impl Scale {
    /// A scale that spans exactly the values, for time.
    pub(super) fn over(values: impl Iterator<Item = f64>, from: f64, to: f64) -> Self {
        let (low, high) = extent(values);
        let high = if high > low { high } else { low + 1.0 };
        Self {
            low,
            high,
            from,
            to,
            step: round_step((high - low) / 10.0),
        }
    }

    /// A scale from zero, or from below it when there are negative values, to a round number above all values.
    pub(super) fn from_zero(values: impl Iterator<Item = f64>, from: f64, to: f64) -> Self {
        let (low, high) = extent(values);
        let (low, high) = (low.min(0.0), high.max(0.0));
        let span = if high > low { high - low } else { 1.0 };
        let step = round_step(span / f64::from(INTERVALS));
        let low = (low / step).floor() * step;
        let intervals = ((high - low) / step).ceil().max(f64::from(INTERVALS));
        Self {
            low,
            high: low + intervals * step,
            from,
            to,
            step,
        }
    }

    /// The place of a value.
    pub(super) fn at(&self, value: f64) -> f64 {
        self.from + (value - self.low) / (self.high - self.low) * (self.to - self.from)
    }

    /// The round values on the scale.
    pub(super) fn ticks(&self) -> impl Iterator<Item = f64> {
        let first = (self.low / self.step).ceil();
        let (step, high) = (self.step, self.high + self.step * 1e-9);
        (0_u32..)
            .map(move |index| (first + f64::from(index)) * step)
            .take_while(move |tick| *tick <= high)
    }
}

fn extent(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| {
        (low.min(v), high.max(v))
    });
    if low <= high { (low, high) } else { (0.0, 0.0) }
}

/// The smallest of 1, 2, 2.5, 5 and 10 times a power of ten that is not below `least`.
fn round_step(least: f64) -> f64 {
    let power = 10_f64.powf(least.log10().floor());
    let factor = [1.0, 2.0, 2.5, 5.0]
        .into_iter()
        .find(|factor| factor * power >= least * (1.0 - 1e-9))
        .unwrap_or(10.0);
    factor * power
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_cover_the_values() {
        let scale = Scale::from_zero([3.0, 97.0].into_iter(), 100.0, 0.0);
        assert_eq!(
            scale.ticks().collect::<Vec<_>>(),
            [0.0, 20.0, 40.0, 60.0, 80.0, 100.0]
        );
        assert!((scale.at(0.0) - 100.0).abs() < 1e-9 && scale.at(100.0).abs() < 1e-9);
    }

    #[test]
    fn nothing_and_one_value_make_a_scale_too() {
        for values in [vec![], vec![0.0], vec![7.0]] {
            let scale = Scale::from_zero(values.iter().copied(), 0.0, 1.0);
            assert_eq!(scale.ticks().count(), 6, "{values:?}");
            let time = Scale::over(values.iter().copied(), 0.0, 1.0);
            assert!(time.at(7.0).is_finite(), "{values:?}");
        }
    }
}
