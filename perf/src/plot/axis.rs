//! The value axis of a chart: where a value lies, and which values are written beside it.

/// From values to pixels, upwards.
#[derive(Clone, Copy, Debug)]
pub(super) struct Axis {
    low: f64,
    high: f64,
    step: f64,
    log: bool,
    bottom: f64,
    height: f64,
}

impl Axis {
    /// An axis from zero, or from the power of ten below the least value where it is logarithmic.
    pub(super) fn of(values: &[f64], log: bool, (bottom, height): (f64, f64)) -> Self {
        let largest = values.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
        if !log {
            let step = nice_step(largest);
            let high = (largest / step).ceil().max(1.0) * step;
            return Self { low: 0.0, high, step, log, bottom, height };
        }
        let positive = values.iter().copied().filter(|value| *value > 0.0);
        let least = positive.fold(largest, f64::min);
        let low = 10_f64.powf(least.log10().floor());
        let high = 10_f64.powf(largest.log10().ceil()).max(low * 10.0);
        Self { low, high, step: 0.0, log, bottom, height }
    }

    /// The height of a value in the picture.
    pub(super) fn y(&self, value: f64) -> f64 {
        let share = if self.log {
            (value.max(self.low) / self.low).log10() / (self.high / self.low).log10()
        } else {
            (value - self.low) / (self.high - self.low)
        };
        self.bottom - self.height * share.clamp(0.0, 1.0)
    }

    /// The values to be written beside it.
    pub(super) fn ticks(&self) -> Vec<f64> {
        let mut ticks = Vec::new();
        if self.log {
            let mut decade = self.low;
            while decade <= self.high * 1.001 {
                ticks.extend([1.0, 2.0, 5.0].map(|part| part * decade));
                decade *= 10.0;
            }
            ticks.retain(|tick| *tick <= self.high * 1.001);
            return ticks;
        }
        let mut tick = 0.0;
        while tick <= self.high + self.step / 2.0 {
            ticks.push(tick);
            tick += self.step;
        }
        ticks
    }
}

/// 1, 2 or 5 times a power of ten, so that there are five to ten steps.
fn nice_step(largest: f64) -> f64 {
    let rough = largest / 5.0;
    let power = 10_f64.powf(rough.log10().floor());
    [5.0, 2.0, 1.0]
        .map(|part| part * power)
        .into_iter()
        .find(|step| *step <= rough)
        .unwrap_or(power)
}

/// A value as short as it can be told.
pub(super) fn label(value: f64) -> String {
    match value.abs() {
        v if v >= 10_000.0 => format!("{:.0}k", value / 1e3),
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}").replace(".0", ""),
        _ => format!("{value:.2}").trim_end_matches('0').trim_end_matches('.').to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_linear_axis_begins_at_zero_and_ends_above_the_largest_value() {
        let axis = Axis::of(&[3.0, 47.0], false, (100.0, 100.0));
        assert_eq!(axis.ticks(), [0.0, 5.0, 10.0, 15.0, 20.0, 25.0, 30.0, 35.0, 40.0, 45.0, 50.0]);
        assert!((axis.y(0.0) - 100.0).abs() < 1e-9 && axis.y(50.0).abs() < 1e-9);
    }

    #[test]
    fn a_logarithmic_axis_covers_whole_decades() {
        let axis = Axis::of(&[8.0, 340.0], true, (100.0, 90.0));
        let expected = [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1_000.0];
        assert!(axis.ticks().iter().zip(expected).all(|(tick, other)| (tick - other).abs() < 1e-6));
        assert!((axis.y(10.0) - 70.0).abs() < 1e-6);
        assert!((axis.y(0.0) - 100.0).abs() < 1e-6, "nothing lies on the ground");
    }

    #[test]
    fn labels_have_no_needless_digits() {
        assert_eq!(
            [0.5, 2.0, 12.0, 12.5, 340.0, 45_000.0].map(label).join(" "),
            "0.5 2 12 12.5 340 45k"
        );
    }
}
