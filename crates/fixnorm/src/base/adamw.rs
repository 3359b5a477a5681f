//! Adam with bias correction, as PyTorch's. Decoupled decay, which makes it AdamW, is in `decay.rs`.

use fixnorm_kernels::update::{BaseStep, Scaling};
use serde::{Deserialize, Serialize};

use super::{Base, check_decay, check_epsilon};
use crate::SetupError;

/// `m ← β₁·m + (1 − β₁)·g`, `v ← β₂·v + (1 − β₂)·g²`; after t steps the direction is
/// `(m/(1 − β₁ᵗ))/(√(v/(1 − β₂ᵗ)) + ε)`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct AdamW {
    /// β₁.
    pub beta1: f64,
    /// β₂.
    pub beta2: f64,
    /// ε.
    pub epsilon: f64,
}

impl Default for AdamW {
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 }
    }
}

impl Base for AdamW {
    fn validate(&self) -> Result<(), SetupError> {
        check_decay("optimizer.beta1", self.beta1)?;
        check_decay("optimizer.beta2", self.beta2)?;
        check_epsilon(self.epsilon)
    }

    fn step(&self, step: usize) -> BaseStep {
        let step = i32::try_from(step).unwrap_or(i32::MAX);
        let correction = |beta: f64| 1.0 - beta.powi(step);
        BaseStep {
            momentum: self.beta1 as f32,
            gain: (1.0 - self.beta1) as f32,
            output: (1.0 / correction(self.beta1)) as f32,
            lookahead: 0.0,
            scaling: Scaling::Direction {
                // In f64: 1 − β₂ of 0.999 would be off by 1.3e-5 in f32.
                inflow: (1.0 - self.beta2) as f32,
                root: (1.0 / correction(self.beta2).sqrt()) as f32,
                epsilon: self.epsilon as f32,
            },
        }
    }

    fn epsilon(&self) -> Option<f64> {
        Some(self.epsilon)
    }

    fn second_start(&self) -> Option<f32> {
        Some(0.0)
    }
}
