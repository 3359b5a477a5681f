//! Accuracy and validation loss fused to one score with less noise between seeds.
//!
//! Near the best settings a seed that is lucky in accuracy is less so in loss: over the better half of the cells of our
//! four tables their deviations correlate by −0.66 to −0.79. Across cells accuracy falls by 0.176 to 0.179 per unit of
//! ln(loss). So ln(loss), times that slope, is a second reading of the accuracy with noise of its own, and the mean of the
//! two has 0.78 times the noise of accuracy alone.
//!
//! Far from the best settings the relation does not hold, and a larger head has a larger loss at the same accuracy; what
//! uses the scores allows for errors that grow with the distance.

use crate::search::{Outcome, Told};

/// Accuracy per unit of ln(loss), in the better half of the cells: −0.176, −0.176, −0.176 and −0.179 in the tables of
/// benches/results/tables.
const PER_LN_LOSS: f64 = -0.176;

/// Weight of the loss.
const WEIGHT: f64 = 0.5;

/// Noise of the fused score, as a share of that of accuracy.
const NOISE: f64 = 0.78;

/// The history with fused scores, and the noise between seeds that they have, given that of accuracy. Unchanged unless
/// every trial with a score has a loss, and there are two at least.
pub(crate) fn fused(history: &[Told], noise: f64) -> (Vec<Told>, f64) {
    let both = |told: &Told| match told.outcome {
        Outcome::Scored { score, loss: Some(loss), .. } => Some((score, loss.ln())),
        _ => None,
    };
    let mut pairs: Vec<(f64, f64)> = history.iter().filter_map(both).collect();
    let scored = history.iter().filter(|told| told.outcome.score().is_some()).count();
    if pairs.len() < scored || scored < 2 {
        return (history.to_vec(), noise);
    }
    // The level at which both agree, from the better half.
    pairs.sort_by(|a, b| b.0.total_cmp(&a.0));
    pairs.truncate(pairs.len().div_ceil(2).max(2));
    let levels = pairs.iter().map(|(score, ln_loss)| score - PER_LN_LOSS * ln_loss);
    let level = levels.sum::<f64>() / pairs.len() as f64;
    let fuse = |told: &Told| match told.outcome {
        Outcome::Scored { score, std, seeds, loss: Some(loss) } => {
            let other = level + PER_LN_LOSS * loss.ln();
            let score = (1.0 - WEIGHT) * score + WEIGHT * other;
            Told {
                point: told.point,
                outcome: Outcome::Scored { score, std, seeds, loss: Some(loss) },
            }
        }
        _ => told.clone(),
    };
    (history.iter().map(fuse).collect(), NOISE * noise)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(score: f64, loss: Option<f64>) -> Told {
        let outcome = Outcome::of(score).with_losses(&loss.into_iter().collect::<Vec<_>>());
        Told { point: [0.0, 0.0], outcome }
    }

    #[test]
    fn the_lower_loss_decides_between_equal_accuracies() {
        let history = [told(0.80, Some(0.60)), told(0.80, Some(0.55)), told(0.70, Some(0.90))];
        let (fused, noise) = fused(&history, 0.01);
        let score = |i: usize| fused[i].outcome.score().unwrap();
        assert!(score(1) > score(0) + 0.005 && score(0) > score(2), "{fused:?}");
        // The level is that of the better half.
        assert!((score(0) + score(1) - 1.6).abs() < 1e-12);
        assert!((noise - 0.0078).abs() < 1e-12);
    }

    #[test]
    fn without_all_losses_accuracy_stays() {
        for history in [[told(0.8, Some(0.6)), told(0.7, None)], [told(0.8, None), told(0.7, None)]]
        {
            assert_eq!(fused(&history, 0.01), (history.to_vec(), 0.01));
        }
    }
}
