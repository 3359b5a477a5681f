//! From data to pixels along one axis, and the ticks of that axis.
//! Not here: drawing them (`plot.rs`, `forest.rs`).

use super::frame::Frame;
use super::number::short;

/// An axis: data from `from` to `to` at pixels from `low` to `high`.
#[derive(Clone, Debug)]
pub(super) struct Scale {
    /// Least value, its logarithm to base 10 on a logarithmic axis.
    pub(super) from: f64,
    pub(super) to: f64,
    pub(super) low: f64,
    pub(super) high: f64,
    pub(super) log: bool,
    /// All values are integers, as epochs are: no ticks between them.
    pub(super) whole: bool,
}

impl Scale {
    /// The range of the finite values; none without any. On a logarithmic axis values up to 0 do not count.
    pub(super) fn of(
        values: impl Iterator<Item = f64>,
        low: f64,
        high: f64,
        log: bool,
    ) -> Option<Self> {
        let values = values.map(|v| if log { v.log10() } else { v }).filter(|v| v.is_finite());
        let (from, to, whole) = values
            .fold((f64::INFINITY, f64::NEG_INFINITY, true), |(a, b, whole), v| {
                (a.min(v), b.max(v), whole && v.fract() == 0.0)
            });
        if from > to {
            return None;
        }
        // A flat curve lies in the middle.
        let margin = if to > from { 0.0 } else { from.abs().max(1.0) * 0.05 };
        Some(Self { from: from - margin, to: to + margin, low, high, log, whole })
    }

    /// A linear axis from 0 to 1.
    pub(super) fn unit(low: f64, high: f64) -> Self {
        Self { from: 0.0, to: 1.0, low, high, log: false, whole: false }
    }

    /// The pixel of a value; none for values without a place, such as NaN.
    pub(super) fn at(&self, value: f64) -> Option<f64> {
        let value = if self.log { value.log10() } else { value };
        let share = (value - self.from) / (self.to - self.from);
        value.is_finite().then_some(self.low + share * (self.high - self.low))
    }

    /// Pixels and labels of round values.
    pub(super) fn ticks(&self) -> Vec<(f64, String)> {
        let decades = self.to - self.from;
        let values = if !self.log {
            linear(self.from, self.to, if self.whole { 1.0 } else { 0.0 })
        } else if decades < 1.0 {
            let (from, to) = (10f64.powf(self.from), 10f64.powf(self.to));
            linear(from, to, 0.0).into_iter().filter(|v| *v > 0.0).collect()
        } else if decades < 3.0 {
            self.powers(1, &[1.0, 2.0, 5.0])
        } else {
            self.powers((decades / 6.0).ceil() as usize, &[1.0])
        };
        values.into_iter().filter_map(|v| Some((self.at(v)?, short(v)))).collect()
    }

    /// The ticks of a horizontal axis: as many as have room for their labels.
    pub(super) fn horizontal_ticks(&self) -> Vec<(f64, String)> {
        let ticks = self.ticks();
        let longest = ticks.iter().map(|tick| tick.1.chars().count()).max().unwrap_or(0);
        let room = (longest + 1) as f64 * Frame::CHARACTER;
        let narrowest = ticks.windows(2).map(|pair| (pair[1].0 - pair[0].0).abs());
        let narrowest = narrowest.fold(f64::INFINITY, f64::min);
        let every = (room / narrowest).ceil().max(1.0) as usize;
        ticks.into_iter().step_by(every).collect()
    }

    /// Multiples of every `every`-th power of ten within the axis.
    fn powers(&self, every: usize, multiples: &[f64]) -> Vec<f64> {
        let powers = (self.from.floor() as i32..=self.to.ceil() as i32)
            .filter(|power| power.rem_euclid(every as i32) == 0);
        let values = powers.flat_map(|p| multiples.iter().map(move |m| m * 10f64.powi(p)));
        // A tolerance: an end that is a power of ten itself has a tick.
        let margin = 1e-9 * (self.to - self.from);
        let range = self.from - margin..=self.to + margin;
        values.filter(|value| range.contains(&value.log10())).collect()
    }

    /// For the page's script: pixels and values of both ends, 1 for a logarithmic axis.
    pub(super) fn attribute(&self) -> String {
        let Self { from, to, low, high, log, .. } = self;
        format!("{low} {high} {from} {to} {}", u8::from(*log))
    }
}

/// Round values that divide a range into about five parts, `least` or more apart.
fn linear(from: f64, to: f64, least: f64) -> Vec<f64> {
    let raw = (to - from) / 5.0;
    let power = 10f64.powf(raw.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|m| m * power).into_iter().find(|s| *s >= raw);
    let step = step.unwrap_or(power).max(least);
    // Beyond these counts the values' own precision is coarser than the step.
    let (first, last) = ((from / step - 1e-9).ceil(), (to / step + 1e-9).floor());
    if !step.is_normal() || first.abs() > 1e15 || last - first > 20.0 {
        return vec![];
    }
    (first as i64..=last as i64).map(|i| i as f64 * step).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(from: f64, to: f64, log: bool) -> Vec<String> {
        let scale = Scale::of([from, to].into_iter(), 0.0, 1.0, log).unwrap();
        scale.ticks().into_iter().map(|tick| tick.1).collect()
    }

    #[test]
    fn ticks_are_round() {
        assert_eq!(linear(0.0, 10.0, 0.0), [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]);
        assert_eq!(linear(-0.3, 0.3, 0.0).len(), 3);
        let epochs = Scale::of([1.0, 2.0].into_iter(), 0.0, 1.0, false).unwrap();
        assert_eq!(epochs.ticks(), [(0.0, "1".to_owned()), (1.0, "2".to_owned())]);
    }

    #[test]
    fn logarithmic_axes_have_several_ticks_and_not_many() {
        assert_eq!(labels(0.02, 0.3, true), ["0.02", "0.05", "0.1", "0.2"]);
        assert_eq!(labels(0.02, 0.05, true).len(), 4);
        assert_eq!(labels(1e-4, 1.0, true), ["1e-4", "0.001", "0.01", "0.1", "1"]);
        assert!(labels(1e-30, 1e30, true).len() <= 8);
    }

    #[test]
    fn labels_of_a_horizontal_axis_have_room() {
        let scale = |width| Scale::of([-0.02, 0.0].into_iter(), 0.0, width, false).unwrap();
        assert_eq!(scale(500.0).horizontal_ticks().len(), 5);
        assert_eq!(scale(150.0).horizontal_ticks().len(), 3);
        assert_eq!(scale(20.0).horizontal_ticks().len(), 1);
    }

    #[test]
    fn nothing_finite_is_no_axis_and_huge_values_are_one() {
        assert!(Scale::of([f64::NAN, f64::INFINITY].into_iter(), 0.0, 1.0, false).is_none());
        assert!(Scale::of([0.0, -1.0].into_iter(), 0.0, 1.0, true).is_none());
        assert!(labels(-1.7e308, 1.7e308, false).len() < 20);
        assert!(labels(1e20, 1e20 + 1e5, false).len() < 20);
    }
}
