//! Following another run's record: the learning rates and norms of the next step.
//! Not here: the record (`run_dir/trajectory.rs`), rates without a record (`rates.rs`).

use std::path::Path;

use fixnorm::{Role, Roles};
use fixnorm_analysis::Trajectory;

use crate::recipe::Follow;
use crate::run_dir::trajectory;
use crate::session::rates::Rates;
use crate::{Plan, TrainError};

/// A record and the values of it that are followed.
pub(crate) struct Follower {
    record: Trajectory,
    follow: Follow,
    /// Scale-invariant weights.
    layers: Vec<String>,
    /// The head, if its norm is followed.
    head: Option<String>,
}

impl Follower {
    /// The follower that a plan asks for, checked against its weights and steps.
    pub(crate) fn open(plan: &Plan, roles: &Roles) -> Result<Option<Self>, TrainError> {
        let replay = &plan.recipe.replay;
        let Some(run) = &replay.run else { return Ok(None) };
        let record = trajectory::read(Path::new(run))?;
        let with = |role| roles.params.iter().filter(move |p| p.role == role && p.is_weight());
        let layers: Vec<String> = with(Role::ScaleInvariant).map(|p| p.path.clone()).collect();
        let head = with(Role::Head).map(|p| p.path.clone()).next().filter(|_| replay.head);
        if plan.derived.steps > record.steps() {
            return Err(TrainError::ReplayTooShort {
                run: run.clone(),
                recorded: record.steps(),
                steps: plan.derived.steps,
            });
        }
        for path in layers.iter().chain(&head) {
            record.norm(0, path)?;
        }
        Ok(Some(Self { record, follow: replay.follow, layers, head }))
    }

    /// Whether there are norms to set.
    pub(crate) fn holds_norms(&self) -> bool {
        self.follow == Follow::Norms || self.head.is_some()
    }

    /// The norms to set before a step.
    pub(crate) fn norms(&self, step: usize) -> Result<Vec<(&str, f64)>, TrainError> {
        let layers = match self.follow {
            Follow::Norms => &self.layers[..],
            Follow::EffectiveLr => &[],
        };
        let weights = layers.iter().chain(&self.head);
        weights.map(|path| Ok((path.as_str(), self.record.norm(step, path)?))).collect()
    }

    /// The learning rates of a step before which the weights have these norms.
    pub(crate) fn rates(&self, step: usize, norms: &[(String, f64)]) -> Result<Rates, TrainError> {
        let base = self.record.lr(step)?;
        if self.follow == Follow::Norms {
            return Ok(Rates::uniform(base));
        }
        let layers = norms.iter().filter(|(path, _)| self.layers.contains(path));
        let layers = layers
            .map(|(path, norm)| Ok((path.clone(), self.record.learning_rate(step, path, *norm)?)));
        Ok(Rates { base, layers: layers.collect::<Result<_, TrainError>>()? })
    }
}
