//! RMSProp with TensorFlow's ε inside the root and averages that start at one.

use fixnorm_kernels::update::{BaseStep, Scaling};
use serde::{Deserialize, Serialize};

use super::{Base, check_decay, check_epsilon};
use crate::SetupError;

/// `s ← α·s + (1 − α)·g²`, `u ← μ·u + g/√(s + ε)`; the direction is `u`. `s` starts at one.
///
/// The learning rate stays outside of the momentum buffer, as in PyTorch and for every other base update here. Under a
/// constant learning rate this is TensorFlow's update exactly; timm calls the two forms `lr_in_momentum`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RmsProp {
    /// Decay α of the squared gradient's average.
    pub decay: f64,
    /// μ.
    pub momentum: f64,
    /// ε.
    pub epsilon: f64,
}

impl Default for RmsProp {
    fn default() -> Self {
        Self { decay: 0.9, momentum: 0.9, epsilon: 1e-3 }
    }
}

impl Base for RmsProp {
    fn validate(&self) -> Result<(), SetupError> {
        check_decay("optimizer.rms_decay", self.decay)?;
        check_decay("optimizer.momentum", self.momentum)?;
        check_epsilon(self.epsilon)
    }

    fn step(&self, _step: usize) -> BaseStep {
        let (inflow, epsilon) = ((1.0 - self.decay) as f32, self.epsilon as f32);
        BaseStep {
            momentum: self.momentum as f32,
            gain: 1.0,
            output: 1.0,
            lookahead: 0.0,
            scaling: Scaling::Gradient { inflow, epsilon },
        }
    }

    fn epsilon(&self) -> Option<f64> {
        Some(self.epsilon)
    }

    fn second_start(&self) -> Option<f32> {
        Some(1.0)
    }
}
