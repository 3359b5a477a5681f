//! SGD with momentum, as PyTorch's with dampening 0.

use fixnorm_kernels::update::{BaseStep, Scaling};
use serde::{Deserialize, Serialize};

use super::{Base, check_decay};
use crate::SetupError;

/// `u ← μ·u + g`; the direction is `u`, or `g + μ·u` with Nesterov momentum.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sgd {
    /// μ.
    pub momentum: f64,
    /// Nesterov's look-ahead.
    pub nesterov: bool,
}

impl Default for Sgd {
    fn default() -> Self {
        Self { momentum: 0.9, nesterov: false }
    }
}

impl Base for Sgd {
    fn validate(&self) -> Result<(), SetupError> {
        check_decay("optimizer.momentum", self.momentum)
    }

    fn step(&self, _step: usize) -> BaseStep {
        let momentum = self.momentum as f32;
        let (output, lookahead) = if self.nesterov { (momentum, 1.0) } else { (1.0, 0.0) };
        BaseStep { momentum, gain: 1.0, output, lookahead, scaling: Scaling::None }
    }
}
