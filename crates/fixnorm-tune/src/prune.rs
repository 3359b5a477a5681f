//! Stopping trials that have no hope, from their curves so far.

use serde::{Deserialize, Serialize};

/// Rule for stopping a trial early.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Prune {
    /// Never.
    #[default]
    Off,
    /// When its best score so far is below the median of the others' best at the same epoch, from a quarter of the
    /// epochs on and with four others there at least.
    Median,
    /// At 1/9 and 1/3 of the epochs, unless it is among the best third of those that came so far (asynchronous
    /// successive halving, Li et al. 2020).
    Halving,
}

impl Prune {
    /// Returns true if a trial should stop after its epochs so far. `curve` has a score per epoch; `others` are curves of the
    /// trials before it, finished or not, and may be shorter.
    pub fn should_stop(self, curve: &[f64], others: &[Vec<f64>], epochs: usize) -> bool {
        let done = curve.len();
        if done == 0 || done >= epochs {
            return false;
        }
        let best = |curve: &[f64]| curve.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let own = best(curve);
        let mut rivals: Vec<f64> =
            others.iter().filter_map(|other| other.get(..done).map(best)).collect();
        rivals.sort_by(f64::total_cmp);
        match self {
            Prune::Off => false,
            Prune::Median => {
                done * 4 >= epochs && rivals.len() >= 4 && own < rivals[rivals.len() / 2]
            }
            Prune::Halving => {
                let at_rung = [9, 3].iter().any(|&part| done == epochs.div_ceil(part));
                // Of n in all, the best ⌈n/3⌉ go on.
                let all = rivals.len() + 1;
                let better = rivals.iter().filter(|&&rival| rival > own).count();
                at_rung && all >= 3 && better >= all.div_ceil(3)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn others() -> Vec<Vec<f64>> {
        [0.5, 0.6, 0.7, 0.8, 0.9]
            .map(|top: f64| (1..=9).map(|e| top * e as f64 / 9.0).collect())
            .to_vec()
    }

    #[test]
    fn median_stops_the_worse_half_but_not_early() {
        let curve = |top: f64, epochs: usize| -> Vec<f64> {
            (1..=epochs).map(|e| top * e as f64 / 9.0).collect()
        };
        assert!(Prune::Median.should_stop(&curve(0.65, 3), &others(), 9));
        assert!(!Prune::Median.should_stop(&curve(0.75, 3), &others(), 9));
        assert!(!Prune::Median.should_stop(&curve(0.65, 2), &others(), 9));
        assert!(!Prune::Median.should_stop(&curve(0.65, 9), &others(), 9));
        assert!(!Prune::Median.should_stop(&curve(0.65, 3), &others()[..3], 9));
    }

    #[test]
    fn halving_keeps_the_best_third_at_its_rungs() {
        let curve = |top: f64| vec![top / 9.0];
        assert!(!Prune::Halving.should_stop(&curve(0.85), &others(), 9));
        assert!(Prune::Halving.should_stop(&curve(0.75), &others(), 9));
        assert!(!Prune::Halving.should_stop(&[0.0, 0.0], &others(), 9));
        assert!(!Prune::Off.should_stop(&curve(0.0), &others(), 9));
    }
}
