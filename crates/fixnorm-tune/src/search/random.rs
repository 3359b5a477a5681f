//! Points uniform in the log of both knobs.

use serde::{Deserialize, Serialize};

use super::{Ask, Searcher, Told, rng, uniform};
use crate::space::Space;

/// Random search.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Random {
    /// The space to search.
    pub space: Space,
    /// Decides the points.
    pub seed: u64,
}

impl Searcher for Random {
    fn ask(&self, history: &[Told]) -> Ask {
        Ask::Try(self.space.at_share(uniform(&mut rng(self.seed, history.len()))))
    }
}
