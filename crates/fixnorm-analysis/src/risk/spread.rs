//! A distribution in few numbers: quantiles and a histogram.

use serde::{Deserialize, Serialize};

/// A distribution in few numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// Arithmetic mean.
    pub mean: f64,
    /// Share of the values below, and the value there, interpolated linearly: 0, 1 %, 5 %, 10 %, 25 %, 50 %,
    /// 75 %, 90 %, 95 %, 99 %, 1.
    pub quantiles: Vec<(f64, f64)>,
    /// Counts over the range.
    pub histogram: Histogram,
}

/// Counts in bins of equal width.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Histogram {
    /// Lower edge of the first bin.
    pub from: f64,
    /// Upper edge of the last bin.
    pub to: f64,
    /// Number of values in each bin; the first and the last one also count values beyond.
    pub counts: Vec<usize>,
}

const SHARES: [f64; 11] = [0.0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1.0];
const BINS: usize = 40;

impl Spread {
    /// The histogram of these values, of which there is at least one.
    pub(crate) fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let quantile = |share: f64| {
            let at = share * (values.len() - 1) as f64;
            let (below, above) = (at.floor() as usize, at.ceil() as usize);
            values[below] + (values[above] - values[below]) * (at - at.floor())
        };
        Self {
            mean: values.iter().sum::<f64>() / values.len() as f64,
            quantiles: SHARES.iter().map(|&share| (share, quantile(share))).collect(),
            // A few samples far out would leave everything else in two bins.
            histogram: Histogram::of(&values, quantile(0.005), quantile(0.995)),
        }
    }
}

impl Histogram {
    fn of(values: &[f64], from: f64, to: f64) -> Self {
        let width = (to - from).max(f64::MIN_POSITIVE);
        let mut counts = vec![0; BINS];
        for value in values {
            let bin = ((value - from) / width * BINS as f64).max(0.0) as usize;
            counts[bin.min(BINS - 1)] += 1;
        }
        Self { from, to, counts }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_interpolate_and_bins_hold_everything() {
        let spread = Spread::of((0..=200).rev().map(f64::from).collect());
        assert_eq!(spread.mean, 100.0);
        assert_eq!(spread.quantiles[0], (0.0, 0.0));
        assert_eq!(spread.quantiles[4], (0.25, 50.0));
        assert_eq!(spread.quantiles[10], (1.0, 200.0));
        assert_eq!((spread.histogram.from, spread.histogram.to), (1.0, 199.0));
        assert_eq!(spread.histogram.counts.iter().sum::<usize>(), 201);
        assert_eq!(Spread::of(vec![3.0; 5]).histogram.counts.iter().sum::<usize>(), 5);
    }
}
