//! Mean and spread over seeds, paired bootstrap intervals, rank correlation.
//!
//! Intervals are percentiles of 10,000 bootstrap resamples. With five seeds they are narrower than they should be,
//! as bootstrap intervals of few values are; the number of values stands beside each.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};

/// Mean and spread of one number over seeds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stat {
    /// Arithmetic mean.
    pub mean: f64,
    /// Standard deviation with n − 1; none for a single value.
    pub std: Option<f64>,
    /// Number of values.
    pub n: usize,
}

/// An estimate with a 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// The estimate.
    pub estimate: f64,
    /// Where the interval begins; none for too few values.
    pub low: Option<f64>,
    /// Where it ends.
    pub high: Option<f64>,
    /// Number of values, or of pairs.
    pub n: usize,
}

impl Stat {
    /// Computes both; none without values.
    pub fn of(values: &[f64]) -> Option<Self> {
        let n = values.len();
        let mean = mean(values)?;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        let std = (n > 1).then(|| (squares / (n - 1) as f64).sqrt());
        Some(Self { mean, std, n })
    }
}

fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

const RESAMPLES: usize = 10_000;

/// Percentiles of a statistic over resamples of `n` indices. A resample without a value is drawn again.
fn bootstrap(n: usize, statistic: impl Fn(&[usize]) -> Option<f64>) -> Option<(f64, f64)> {
    let mut random = ChaCha8Rng::seed_from_u64(0);
    let mut found = Vec::with_capacity(RESAMPLES);
    // Resamples of few values may all be alike in what is asked for.
    for _ in 0..10 * RESAMPLES {
        let drawn: Vec<usize> =
            (0..n).map(|_| ((u128::from(random.next_u64()) * n as u128) >> 64) as usize).collect();
        found.extend(statistic(&drawn));
        if found.len() == RESAMPLES {
            break;
        }
    }
    if found.len() < RESAMPLES {
        return None;
    }
    found.sort_by(f64::total_cmp);
    let at = |share: f64| found[(share * (RESAMPLES - 1) as f64).round() as usize];
    Some((at(0.025), at(0.975)))
}

/// Mean of `a − b` over pairs of the same seed.
pub fn paired_difference(pairs: &[(f64, f64)]) -> Option<Interval> {
    let differences: Vec<f64> = pairs.iter().map(|(a, b)| a - b).collect();
    let n = differences.len();
    let estimate = mean(&differences)?;
    let of = |drawn: &[usize]| mean(&drawn.iter().map(|&i| differences[i]).collect::<Vec<_>>());
    let ends = if n > 1 { bootstrap(n, of) } else { None };
    Some(Interval { estimate, low: ends.map(|e| e.0), high: ends.map(|e| e.1), n })
}

/// The mean of values, with a t-interval.
pub fn t_interval(values: &[f64]) -> Option<Interval> {
    let Stat { mean, std, n } = Stat::of(values)?;
    let half = std.map(|std| t_quantile(n - 1) * std / (n as f64).sqrt());
    let end = |sign: f64| half.map(|half| mean + sign * half);
    Some(Interval { estimate: mean, low: end(-1.0), high: end(1.0), n })
}

/// The 97.5 % quantile of Student's t; `freedom` is at least 1.
fn t_quantile(freedom: usize) -> f64 {
    const SMALL: [f64; 10] =
        [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228];
    // Cornish–Fisher about the normal quantile, right to 0.001 from here on.
    let (z, n) = (1.959_964_f64, freedom as f64);
    let series = z
        + (z.powi(3) + z) / (4.0 * n)
        + (5.0 * z.powi(5) + 16.0 * z.powi(3) + 3.0 * z) / (96.0 * n * n)
        + (3.0 * z.powi(7) + 19.0 * z.powi(5) + 17.0 * z.powi(3) - 15.0 * z) / (384.0 * n * n * n);
    SMALL.get(freedom - 1).copied().unwrap_or(series)
}

/// Spearman's rank correlation; none where one of the two is constant.
pub fn rank_correlation(pairs: &[(f64, f64)]) -> Option<Interval> {
    let rho = spearman(pairs)?;
    let of = |drawn: &[usize]| spearman(&drawn.iter().map(|&i| pairs[i]).collect::<Vec<_>>());
    let ends = if pairs.len() > 3 { bootstrap(pairs.len(), of) } else { None };
    Some(Interval {
        estimate: rho,
        low: ends.map(|e| e.0),
        high: ends.map(|e| e.1),
        n: pairs.len(),
    })
}

fn spearman(pairs: &[(f64, f64)]) -> Option<f64> {
    let ranks = |values: Vec<f64>| -> Vec<f64> {
        let mut order: Vec<usize> = (0..values.len()).collect();
        order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
        let mut ranks = vec![0.0; values.len()];
        let mut first = 0;
        while first < order.len() {
            let tied = order[first..].iter().take_while(|&&i| values[i] == values[order[first]]);
            let count = tied.count();
            // Equal values share the mean of their ranks.
            let rank = first as f64 + (count - 1) as f64 / 2.0;
            order[first..first + count].iter().for_each(|&i| ranks[i] = rank);
            first += count;
        }
        ranks
    };
    let (x, y): (Vec<f64>, Vec<f64>) = pairs.iter().copied().unzip();
    let (x, y) = (ranks(x), ranks(y));
    let (mx, my) = (mean(&x)?, mean(&y)?);
    let sum = |of: &dyn Fn(f64, f64) -> f64| x.iter().zip(&y).map(|(x, y)| of(*x, *y)).sum::<f64>();
    let (xx, yy) = (sum(&|x, _| (x - mx).powi(2)), sum(&|_, y| (y - my).powi(2)));
    (xx > 0.0 && yy > 0.0).then(|| sum(&|x, y| (x - mx) * (y - my)) / (xx * yy).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_and_deviations() {
        let stat = Stat::of(&[1.0, 2.0, 6.0]).unwrap();
        assert_eq!((stat.mean, stat.n), (3.0, 3));
        assert!((stat.std.unwrap() - 7f64.sqrt()).abs() < 1e-12);
        assert_eq!(Stat::of(&[2.0]).unwrap().std, None);
        assert_eq!(Stat::of(&[]), None);
    }

    #[test]
    fn pairing_takes_out_what_seeds_share() {
        // Seeds differ by 10, arms by about 1.
        let pairs: Vec<(f64, f64)> = (0..8)
            .map(|i| (10.0 * f64::from(i) + 1.0 + 0.1 * f64::from(i % 3), 10.0 * f64::from(i)))
            .collect();
        let found = paired_difference(&pairs).unwrap();
        assert!((found.estimate - 1.0875).abs() < 1e-9, "{found:?}");
        let (low, high) = (found.low.unwrap(), found.high.unwrap());
        assert!(
            low > 1.0 && low < found.estimate && high > found.estimate && high < 1.2,
            "{found:?}"
        );
        assert_eq!(
            paired_difference(&[(1.0, 3.0)]).unwrap(),
            Interval { estimate: -2.0, low: None, high: None, n: 1 }
        );
        assert_eq!(paired_difference(&[]), None);
    }

    /// Half-width of a bootstrap interval of a mean: 1.96·s/√n, s with n.
    #[test]
    fn intervals_are_as_wide_as_theory_says() {
        let pairs: Vec<(f64, f64)> =
            (0..200).map(|i| (f64::from(i * 37 % 200) / 200.0, 0.0)).collect();
        let found = paired_difference(&pairs).unwrap();
        let half = (found.high.unwrap() - found.low.unwrap()) / 2.0;
        let expected = 1.96 * (1.0f64 / 12.0).sqrt() / 200f64.sqrt();
        assert!((half / expected - 1.0).abs() < 0.05, "{half} {expected}");
    }

    #[test]
    fn t_intervals_are_those_of_tables() {
        let found = t_interval(&[1.0, 2.0, 3.0]).unwrap();
        // 4.303/√3.
        assert!((found.high.unwrap() - 2.0 - 2.4843).abs() < 1e-3, "{found:?}");
        for (freedom, expected) in [(1, 12.706), (9, 2.262), (11, 2.201), (20, 2.086), (60, 2.000)]
        {
            assert!((t_quantile(freedom) - expected).abs() < 1.5e-3, "{freedom}");
        }
        assert_eq!(t_interval(&[2.0]).unwrap().low, None);
        assert_eq!(t_interval(&[]), None);
    }

    #[test]
    fn rank_correlation_sees_order_alone() {
        let rising: Vec<(f64, f64)> = (0..9).map(|i| (f64::from(i), f64::from(i).exp())).collect();
        assert!((rank_correlation(&rising).unwrap().estimate - 1.0).abs() < 1e-12);
        let falling: Vec<(f64, f64)> = rising.iter().map(|(x, y)| (*x, -y)).collect();
        assert!((rank_correlation(&falling).unwrap().estimate + 1.0).abs() < 1e-12);
        // Ranks 0, 1.5, 1.5, 3 against 1, 0, 2, 3.
        let tied = [(1.0, 5.0), (2.0, 4.0), (2.0, 6.0), (3.0, 7.0)];
        let found = rank_correlation(&tied).unwrap().estimate;
        assert!((found - 3.0 / (4.5f64 * 5.0).sqrt()).abs() < 1e-12, "{found}");
        assert_eq!(rank_correlation(&[(1.0, 2.0), (1.0, 3.0)]), None);
    }
}
