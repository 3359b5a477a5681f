//! The base updates an optimizer is built around.
//! Not here: norms (`constraint.rs`), decay (`decay.rs`), the arithmetic (`fixnorm-kernels`).

use serde::{Deserialize, Serialize};

use crate::SetupError;

/// How a gradient becomes a direction.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum BaseUpdate {
    /// Stochastic gradient descent with momentum; no dampening, as PyTorch's default.
    Sgd {
        /// μ in `u ← μ·u + g`.
        momentum: f64,
        /// Nesterov's look-ahead: the direction is `g + μ·u` instead of `u`.
        nesterov: bool,
    },
    /// RMSProp in TensorFlow's form: ε inside the root, the average starts at one, the learning
    /// rate goes into the momentum buffer.
    RmsProp {
        /// Decay of the squared gradient's average.
        alpha: f64,
        /// μ in `u ← μ·u + lr·g/√(s + ε)`.
        momentum: f64,
        /// ε.
        epsilon: f64,
    },
    /// Adam's update with bias correction; with decoupled decay it is AdamW.
    AdamW {
        /// β₁ and β₂.
        betas: (f64, f64),
        /// ε.
        epsilon: f64,
    },
}

impl BaseUpdate {
    /// SGD with this momentum.
    pub fn sgd(momentum: f64) -> Self {
        BaseUpdate::Sgd { momentum, nesterov: false }
    }

    /// SGD with Nesterov momentum.
    pub fn nesterov(momentum: f64) -> Self {
        BaseUpdate::Sgd { momentum, nesterov: true }
    }

    /// RMSProp with TensorFlow's α = 0.9, momentum 0.9 and ε = 1e-3, EfficientNet's setting.
    pub fn rmsprop() -> Self {
        BaseUpdate::RmsProp { alpha: 0.9, momentum: 0.9, epsilon: 1e-3 }
    }

    /// Adam with β = (0.9, 0.999) and ε = 1e-8.
    pub fn adamw() -> Self {
        BaseUpdate::AdamW { betas: (0.9, 0.999), epsilon: 1e-8 }
    }

    pub(crate) fn validate(&self) -> Result<(), SetupError> {
        let share = |name, value: f64| match (0.0..1.0).contains(&value) {
            true => Ok(()),
            false => {
                Err(SetupError::OutOfRange { name, expected: "at least 0 and below 1", value })
            }
        };
        let positive = |value: f64| match value > 0.0 {
            true => Ok(()),
            false => Err(SetupError::OutOfRange { name: "epsilon", expected: "above 0", value }),
        };
        match *self {
            BaseUpdate::Sgd { momentum, .. } => share("momentum", momentum),
            BaseUpdate::RmsProp { alpha, momentum, epsilon } => {
                share("alpha", alpha).and(share("momentum", momentum)).and(positive(epsilon))
            }
            BaseUpdate::AdamW { betas, epsilon } => {
                share("beta1", betas.0).and(share("beta2", betas.1)).and(positive(epsilon))
            }
        }
    }
}
