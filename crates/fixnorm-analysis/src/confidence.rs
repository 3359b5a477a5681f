//! What logits say beside the accuracy: loss, margins, calibration, and the temperature that fits them best.
//! Not here: distances in feature space (`risk`), the features' own geometry (`class_means.rs`).

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::risk::geometry::{Boundaries, Margins};
use crate::risk::{Features, LinearHead, RiskError, Spread};

/// Logits of samples, with their labels.
pub struct Logits<'a> {
    margins: Margins,
    labels: &'a [u32],
}

/// Loss, margins and calibration on a set of samples.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Confidence {
    /// Mean cross-entropy.
    pub loss: f64,
    /// Share of correct predictions; a tie is none.
    pub top1: f64,
    /// Distribution of z_y − max over j ≠ y of z_j, in logits.
    pub margin: Spread,
    /// Mean probability of the likeliest class.
    pub confidence: f64,
    /// Expected calibration error: mean of |accuracy − confidence| over 15 bins of confidence of equal width, each weighted
    /// by its samples (Guo et al. 2017).
    pub ece: f64,
    /// The T, 0.01 to 100, at which softmax(z/T) has the least loss on these samples; far below 1 where none is
    /// misclassified.
    pub temperature: f64,
    /// The loss at that temperature.
    pub loss_at_temperature: f64,
}

/// Bins of confidence.
const BINS: usize = 15;

impl<'a> Logits<'a> {
    /// Logits of `features` under `head`.
    ///
    /// # Errors
    /// Sizes that contradict each other, fewer than two classes, no samples, logits that are not finite, two classes with
    /// the same row.
    pub fn new(features: Features<'a>, head: LinearHead<'_>) -> Result<Self, RiskError> {
        let margins = Boundaries::new(head)?.margins(features)?;
        Ok(Self { margins, labels: features.labels })
    }

    /// Mean cross-entropy of softmax(z/T) at the temperature T, which is above 0.
    pub fn loss(&self, temperature: f64) -> f64 {
        let loss = |(sample, &label): (usize, &u32)| {
            let logits = self.margins.row(sample);
            let own = f64::from(logits[label as usize]);
            let (most, sum) = exponentials(logits, temperature);
            sum.ln() + (most - own) / temperature
        };
        let losses: Vec<f64> = self.labels.par_iter().enumerate().map(loss).collect();
        losses.iter().sum::<f64>() / losses.len() as f64
    }

    /// Loss, margins and calibration.
    pub fn confidence(&self) -> Confidence {
        let temperature = self.best_temperature();
        let samples: Vec<(f64, f64)> = self
            .labels
            .par_iter()
            .enumerate()
            .map(|(sample, &label)| self.sample(sample, label))
            .collect();
        let n = samples.len() as f64;
        let correct = |margin: f64| f64::from(u8::from(margin > 0.0));
        let mut bins = [(0.0, 0.0); BINS];
        for &(margin, confidence) in &samples {
            let (right, sure) = &mut bins[((confidence * BINS as f64) as usize).min(BINS - 1)];
            *right += correct(margin);
            *sure += confidence;
        }
        Confidence {
            loss: self.loss(1.0),
            top1: samples.iter().map(|(margin, _)| correct(*margin)).sum::<f64>() / n,
            margin: Spread::of(samples.iter().map(|(margin, _)| *margin).collect()),
            confidence: samples.iter().map(|(_, confidence)| confidence).sum::<f64>() / n,
            ece: bins.iter().map(|(right, sure)| f64::abs(right - sure)).sum::<f64>() / n,
            temperature,
            loss_at_temperature: self.loss(temperature),
        }
    }

    /// Margin, and probability of the likeliest class.
    fn sample(&self, sample: usize, label: u32) -> (f64, f64) {
        let (logits, label) = (self.margins.row(sample), label as usize);
        let others = logits.iter().enumerate().filter(|(class, _)| *class != label);
        let nearest = others.map(|(_, &z)| z).fold(f32::NEG_INFINITY, f32::max);
        let (_, sum) = exponentials(logits, 1.0);
        (f64::from(logits[label]) - f64::from(nearest), 1.0 / sum)
    }

    /// By golden sections: the loss is convex in 1/T, so it has one minimum in ln T.
    fn best_temperature(&self) -> f64 {
        const RATIO: f64 = 0.618_033_988_749_894_9;
        const STEPS: usize = 32;
        let at = |ln: f64| self.loss(ln.exp());
        let (mut low, mut high) = (0.01f64.ln(), 100f64.ln());
        let mut inner = [high - RATIO * (high - low), low + RATIO * (high - low)];
        let mut losses = inner.map(at);
        for _ in 0..STEPS {
            if losses[0] <= losses[1] {
                high = inner[1];
                inner = [high - RATIO * (high - low), inner[0]];
                losses = [at(inner[0]), losses[0]];
            } else {
                low = inner[0];
                inner = [inner[1], low + RATIO * (high - low)];
                losses = [losses[1], at(inner[1])];
            }
        }
        ((low + high) / 2.0).exp()
    }
}

/// The largest logit, and the sum of exp((z − largest)/T) over the classes.
fn exponentials(logits: &[f32], temperature: f64) -> (f64, f64) {
    let most = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    (most, logits.iter().map(|&z| ((f64::from(z) - most) / temperature).exp()).sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two classes; the feature is the difference of their logits.
    const HEAD: LinearHead<'_> = LinearHead { weight: &[0.5, -0.5], bias: &[], classes: 2 };

    fn logits<'a>(differences: &'a [f32], labels: &'a [u32]) -> Logits<'a> {
        Logits::new(Features { values: differences, labels }, HEAD).unwrap()
    }

    #[test]
    fn loss_margin_and_calibration_by_hand() {
        // Probabilities of class 0: 0.75, 0.75, 0.75, 0.6.
        let (a, b) = (3f32.ln(), 1.5f32.ln());
        let values = [a, a, a, b];
        let found = logits(&values, &[0, 0, 1, 1]).confidence();
        let loss = -(2.0 * 0.75f64.ln() + 0.25f64.ln() + 0.4f64.ln()) / 4.0;
        assert!((found.loss - loss).abs() < 1e-6, "{found:?}");
        assert_eq!(found.top1, 0.5);
        assert!((found.confidence - 2.85 / 4.0).abs() < 1e-6);
        // 0.75 lies in bin 11 (2 of 3 right), 0.6 in bin 9 of 15, or in 8 by rounding (0 of 1 right).
        let ece = (f64::abs(2.0 - 2.25) + 0.6) / 4.0;
        assert!((found.ece - ece).abs() < 1e-6, "{found:?}");
        assert!((found.margin.quantiles[10].1 - f64::from(a)).abs() < 1e-6);
        assert!((found.margin.quantiles[0].1 + f64::from(a)).abs() < 1e-6);
    }

    #[test]
    fn the_temperature_is_where_confidence_is_accuracy() {
        // Three of four are right at any temperature; the loss is least where the probability is 0.75.
        let values = [6f32; 4];
        let logits = logits(&values, &[0, 0, 0, 1]);
        let found = logits.confidence();
        assert!((6.0 / found.temperature - 3f64.ln()).abs() < 1e-4, "{found:?}");
        assert!(found.loss_at_temperature < found.loss);
        assert!((logits.loss(found.temperature) - found.loss_at_temperature).abs() < 1e-12);
        // All right: the more certain the better.
        let values = [1.0, 2.0];
        assert!(super::tests::logits(&values, &[0, 0]).confidence().temperature < 0.011);
    }

    #[test]
    fn large_logits_overflow_nothing_and_a_tie_is_not_correct() {
        let values = [3e4, -3e4, 0.0];
        let found = logits(&values, &[0, 0, 0]).confidence();
        assert!((found.loss - (3e4 + 2f64.ln()) / 3.0).abs() < 1e-3, "{found:?}");
        assert_eq!(found.top1, 1.0 / 3.0);
    }
}
