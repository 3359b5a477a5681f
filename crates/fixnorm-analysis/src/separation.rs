//! Everything that is measured of features under a head beside cross-boundary risk, in one.
//! Not here: the measures (`confidence.rs`, `class_means.rs`).

use serde::{Deserialize, Serialize};

use crate::class_means::ClassMeans;
use crate::confidence::{Confidence, Logits};
use crate::risk::{Features, LinearHead, RiskError};

/// How well, and how surely, a head separates the classes of a set of samples.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Separation {
    /// Loss, margins and calibration.
    pub confidence: Confidence,
    /// Class means in feature space, and the head beside them.
    pub class_means: ClassMeans,
}

/// Accuracy and loss on training images beside those on others.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Gap {
    /// Training accuracy minus that on the others: error minus training error.
    pub top1: f64,
    /// Loss on the others minus training loss.
    pub loss: f64,
    /// The same, with the logits of both divided by the temperature that fits the others best: without what the mere
    /// size of the logits does.
    pub loss_at_temperature: f64,
}

impl Separation {
    /// Measures features under a head.
    ///
    /// # Errors
    /// As [`Logits::new`] and [`ClassMeans::of`].
    pub fn of(features: Features<'_>, head: LinearHead<'_>) -> Result<Self, RiskError> {
        let confidence = Logits::new(features, head)?.confidence();
        Ok(Self { confidence, class_means: ClassMeans::of(features, head)? })
    }
}

impl Gap {
    /// Compares training images with others under a head.
    ///
    /// # Errors
    /// As [`Logits::new`].
    pub fn between(
        train: Features<'_>,
        others: Features<'_>,
        head: LinearHead<'_>,
    ) -> Result<Self, RiskError> {
        let (train, others) = (Logits::new(train, head)?, Logits::new(others, head)?);
        let (known, new) = (train.confidence(), others.confidence());
        Ok(Self {
            top1: known.top1 - new.top1,
            loss: new.loss - known.loss,
            loss_at_temperature: new.loss_at_temperature - train.loss(new.temperature),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_is_error_minus_training_error() {
        let head = LinearHead { weight: &[0.5, -0.5], bias: &[], classes: 2 };
        let train = Features { values: &[4.0, -4.0, 4.0, -4.0], labels: &[0, 1, 0, 1] };
        let others = Features { values: &[4.0, -4.0, 4.0, -4.0], labels: &[0, 1, 0, 0] };
        let gap = Gap::between(train, others, head).unwrap();
        assert_eq!(gap.top1, 0.25);
        // One of four logits is wrong by 4.
        assert!((gap.loss - 1.0).abs() < 1e-6, "{gap:?}");
        // At the best temperature the probability of the likeliest class is 0.75.
        let scaled = 3f64.ln() / 4.0;
        assert!((gap.loss_at_temperature - scaled).abs() < 1e-4, "{gap:?}");
        let found = Separation::of(others, head).unwrap();
        assert_eq!(found.confidence.top1, 0.75);
        let json = serde_json::to_value(&found).unwrap();
        assert!(json["class_means"]["within_over_between"].is_f64());
    }
}
