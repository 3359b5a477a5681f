//! Tree-structured Parzen estimators, one an axis, by the crate `tpe`.
//!
//! # Source
//! Bergstra et al., Algorithms for Hyper-Parameter Optimization (2011). Start-up trials and candidates are Optuna's
//! defaults (10 and 24).

use serde::{Deserialize, Serialize};

use super::{Ask, Outcome, Searcher, Told, rng, uniform};
use crate::space::{Point, Space};

/// TPE after random start-up trials.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tpe {
    /// The space to search.
    pub space: Space,
    /// Decides every draw.
    pub seed: u64,
    /// Random trials before the first modelled one.
    pub startup: usize,
    /// Tried first, in place of the first random trial.
    pub first: Option<Point>,
}

impl Searcher for Tpe {
    fn ask(&self, history: &[Told]) -> Ask {
        let number = history.len();
        let mut rng = rng(self.seed, number);
        if let (0, Some(first)) = (number, self.first) {
            return Ask::Try(self.space.snap(first));
        }
        if number < self.startup {
            return Ask::Try(self.space.at_share(uniform(&mut rng)));
        }
        let mut share = uniform(&mut rng);
        for (axis, share) in share.iter_mut().enumerate() {
            let known = history.iter();
            let known = known.map(|told| (self.space.share_of(told.point)[axis], &told.outcome));
            if let Some(found) = along(known, &mut rng) {
                *share = found;
            }
        }
        Ask::Try(self.space.at_share(share))
    }
}

/// A share of one axis, from the shares and outcomes of the trials so far; none if the model has nothing to offer, and
/// then chance decides.
pub(super) fn along<'a>(
    history: impl Iterator<Item = (f64, &'a Outcome)>,
    rng: &mut impl rand::Rng,
) -> Option<f64> {
    let range = tpe::range(0.0, 1.0).ok()?;
    let mut model = tpe::TpeOptimizer::new(tpe::parzen_estimator(), range);
    for (share, outcome) in history {
        // The range excludes its end.
        let share = share.clamp(0.0, 1.0 - 1e-9);
        let loss = match outcome {
            Outcome::Scored { score, .. } => -score,
            // Also what still runs, so that several workers do not try the same.
            Outcome::Bound { at_most } => -at_most,
            Outcome::Failed | Outcome::Pending => f64::INFINITY,
        };
        model.tell(share, loss).ok()?;
    }
    model.ask(rng).ok()
}
