//! The pace of a run: the learning rates of each step, and the norms that it begins with, where a record is followed.
//! Not here: rates (`rates.rs`), the record (`follow.rs`), taking the step (`step.rs`).

use fixnorm::{LrSchedule, Roles};
use fixnorm_analysis::replay::with_norms;
use fixnorm_nn::Classifier;

use crate::session::follow::Follower;
use crate::session::rates::{Rates, factors};
use crate::{Plan, TrainError};

/// The schedule of a run, or the record of another run that it follows.
pub(crate) struct Pace {
    schedule: LrSchedule,
    /// Factors of the learning rate, by path.
    factors: Vec<(String, f64)>,
    follower: Option<Follower>,
}

impl Pace {
    /// The pace of a plan, checked against its weights and steps.
    pub(crate) fn open(plan: &Plan, roles: &Roles) -> Result<Self, TrainError> {
        Ok(Self {
            schedule: plan.lr_schedule(),
            factors: factors(&plan.recipe.lr_scale, roles)?,
            follower: Follower::open(plan, roles)?,
        })
    }

    /// The model with the norms that a step begins with, where these are followed.
    pub(crate) fn with_norms(
        &self,
        model: Classifier,
        step: usize,
    ) -> Result<Classifier, TrainError> {
        match self.follower.as_ref().filter(|follower| follower.holds_norms()) {
            Some(follower) => Ok(with_norms(model, &follower.norms(step)?)),
            None => Ok(model),
        }
    }

    /// The learning rates of a step before which the weights have these norms, which are asked for where they matter.
    pub(crate) fn rates(
        &self,
        step: usize,
        norms: impl FnOnce() -> Vec<(String, f64)>,
    ) -> Result<Rates, TrainError> {
        match &self.follower {
            Some(follower) => follower.rates(step, &norms()),
            None => Ok(Rates::scaled(self.schedule.at_step(step), &self.factors)),
        }
    }
}
