//! The base updates an optimizer is built around: how a gradient becomes a direction.
//! Not here: norms and step length (`rule.rs`), decay (`decay.rs`), the loops (`fixnorm-kernels`, `optim/`).
//!
//! Each base update is one file that gives the coefficients of its step in the common form of
//! [`BaseStep`]. A new one is its file, its test, and its variants here.

mod adamw;
mod rms_prop;
mod sgd;

use fixnorm_kernels::update::BaseStep;
use serde::{Deserialize, Serialize};

pub use adamw::AdamW;
pub use rms_prop::RmsProp;
pub use sgd::Sgd;

use crate::SetupError;

/// The base update: from a gradient to a direction.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum BaseUpdate {
    /// Stochastic gradient descent with momentum.
    Sgd(Sgd),
    /// RMSProp with TensorFlow's ε and start.
    RmsProp(RmsProp),
    /// Adam; with decoupled decay AdamW.
    AdamW(AdamW),
}

/// A base update by its name in a recipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum BaseName {
    /// SGD with momentum.
    Sgd,
    /// SGD with Nesterov momentum.
    Nesterov,
    /// RMSProp with TensorFlow's ε and start.
    Rmsprop,
    /// Adam; with decoupled decay AdamW.
    Adamw,
}

/// The coefficients of all base updates, as a recipe has them; each base update takes its own.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Coefficients {
    /// μ of SGD, Nesterov and RMSProp.
    pub momentum: f64,
    /// Decay of RMSProp's average of squared gradients.
    pub rms_decay: f64,
    /// Adam's β₁.
    pub beta1: f64,
    /// Adam's β₂.
    pub beta2: f64,
    /// ε of RMSProp and Adam; none for the default of the base update.
    pub epsilon: Option<f64>,
}

impl BaseName {
    /// The base update with those of the coefficients that it has.
    pub fn with(self, given: &Coefficients) -> BaseUpdate {
        let Coefficients { momentum, rms_decay: decay, beta1, beta2, epsilon } = *given;
        match self {
            BaseName::Sgd => BaseUpdate::sgd(momentum),
            BaseName::Nesterov => BaseUpdate::nesterov(momentum),
            BaseName::Rmsprop => {
                let epsilon = epsilon.unwrap_or(RmsProp::default().epsilon);
                BaseUpdate::RmsProp(RmsProp { decay, momentum, epsilon })
            }
            BaseName::Adamw => {
                let epsilon = epsilon.unwrap_or(AdamW::default().epsilon);
                BaseUpdate::AdamW(AdamW { beta1, beta2, epsilon })
            }
        }
    }
}

/// One base update.
pub(crate) trait Base {
    /// Checks every coefficient.
    fn validate(&self) -> Result<(), SetupError>;

    /// The coefficients of step number `step`, counted from 1.
    fn step(&self, step: usize) -> BaseStep;

    /// ε, where the update has one.
    fn epsilon(&self) -> Option<f64> {
        None
    }

    /// The initial value of the average of squared gradients; none where the update has no such state.
    fn second_start(&self) -> Option<f32> {
        None
    }
}

impl BaseUpdate {
    fn base(&self) -> &dyn Base {
        match self {
            BaseUpdate::Sgd(base) => base,
            BaseUpdate::RmsProp(base) => base,
            BaseUpdate::AdamW(base) => base,
        }
    }

    /// SGD with this momentum.
    pub fn sgd(momentum: f64) -> Self {
        BaseUpdate::Sgd(Sgd { momentum, nesterov: false })
    }

    /// SGD with Nesterov momentum.
    pub fn nesterov(momentum: f64) -> Self {
        BaseUpdate::Sgd(Sgd { momentum, nesterov: true })
    }

    /// RMSProp with EfficientNet's decay 0.9, momentum 0.9 and ε = 1e-3.
    pub fn rmsprop() -> Self {
        BaseUpdate::RmsProp(RmsProp::default())
    }

    /// Adam with β = (0.9, 0.999) and ε = 1e-8.
    pub fn adamw() -> Self {
        BaseUpdate::AdamW(AdamW::default())
    }

    /// ε, where the update has one.
    pub fn epsilon(&self) -> Option<f64> {
        self.base().epsilon()
    }

    /// Number of tensors of the parameter's size that the update keeps.
    pub fn states(&self) -> usize {
        1 + usize::from(self.second_start().is_some())
    }

    pub(crate) fn validate(&self) -> Result<(), SetupError> {
        self.base().validate()
    }

    pub(crate) fn step(&self, step: usize) -> BaseStep {
        self.base().step(step)
    }

    pub(crate) fn second_start(&self) -> Option<f32> {
        self.base().second_start()
    }
}

/// Checks that a decay or momentum is in [0, 1).
fn check_decay(name: &'static str, value: f64) -> Result<(), SetupError> {
    if (0.0..1.0).contains(&value) {
        return Ok(());
    }
    Err(SetupError::OutOfRange { name, expected: "at least 0 and below 1", value })
}

/// Checks that an ε is above 0.
fn check_epsilon(value: f64) -> Result<(), SetupError> {
    if value > 0.0 {
        return Ok(());
    }
    Err(SetupError::OutOfRange { name: "optimizer.epsilon", expected: "above 0", value })
}
