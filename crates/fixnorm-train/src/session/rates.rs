//! The learning rates of a step, by weight.
//! Not here: rates from another run's record (`follow.rs`), factors by role (`recipe/settings.rs`).

use std::collections::BTreeMap;

use burn::lr_scheduler::module_lr_scheduler::ModuleLearningRate;
use fixnorm::{Roles, SetupError};
use fixnorm_analysis::replay::learning_rates;

/// Learning rates of a step.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Rates {
    /// For all weights that are not named.
    pub(crate) base: f64,
    /// By path.
    pub(crate) layers: Vec<(String, f64)>,
}

impl Rates {
    /// The same for all.
    pub(crate) fn uniform(lr: f64) -> Self {
        Self::scaled(lr, &[])
    }

    /// A schedule's learning rate, times the factor of each weight that has one.
    pub(crate) fn scaled(lr: f64, factors: &[(String, f64)]) -> Self {
        let layers = factors.iter().map(|(path, factor)| (path.clone(), lr * factor));
        Self { base: lr, layers: layers.collect() }
    }

    /// The learning rate of the weight at `path`.
    pub(crate) fn of(&self, path: &str) -> f64 {
        let own = self.layers.iter().find(|(known, _)| known == path);
        own.map_or(self.base, |(_, lr)| *lr)
    }
}

impl From<&Rates> for ModuleLearningRate {
    fn from(rates: &Rates) -> Self {
        let layers = rates.layers.iter().map(|(path, lr)| (path.as_str(), *lr));
        learning_rates(rates.base, layers)
    }
}

/// The factor of each parameter that `[lr_scale]` names.
///
/// # Errors
/// A pattern that matches no parameter.
pub(crate) fn factors(
    scales: &BTreeMap<String, f64>,
    roles: &Roles,
) -> Result<Vec<(String, f64)>, SetupError> {
    let mut found = BTreeMap::new();
    for (pattern, factor) in scales {
        for param in roles.matching(pattern)? {
            found.insert(param.path.clone(), *factor);
        }
    }
    Ok(found.into_iter().collect())
}
