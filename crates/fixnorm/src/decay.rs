//! Weight decay, for the baselines that FixNorm is compared with.

use serde::{Deserialize, Serialize};

use crate::{ParamRole, Role};

/// Weight decay and the parameters it applies to.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct WeightDecay {
    /// λ.
    pub rate: f64,
    /// Where it enters the update.
    pub kind: DecayKind,
    /// The parameters it applies to.
    pub target: DecayTarget,
}

/// Weight decay of one parameter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Decay {
    /// λ.
    pub(crate) rate: f64,
    pub(crate) kind: DecayKind,
}

/// Where decay enters the update.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DecayKind {
    /// `g ← g + λ·w`, before the momentum: PyTorch's SGD.
    L2,
    /// `w ← w·(1 − lr·λ)`, beside the update: PyTorch's AdamW.
    Decoupled,
}

/// The parameters that decay applies to. Gains and biases are spared unless `AllParameters` is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DecayTarget {
    /// Every weight: parameters of two dimensions or more.
    AllWeights,
    /// Scale-invariant weights only.
    ScaleInvariant,
    /// The head only.
    Head,
    /// Gains and biases as well.
    AllParameters,
}

impl DecayTarget {
    /// Whether decay applies to this parameter.
    pub fn includes(self, param: &ParamRole) -> bool {
        match self {
            DecayTarget::AllWeights => param.is_weight(),
            DecayTarget::ScaleInvariant => param.role == Role::ScaleInvariant,
            DecayTarget::Head => param.role == Role::Head,
            DecayTarget::AllParameters => true,
        }
    }
}
