//! What a user can choose: the recipe, one struct a section, every key with a default.
//!
//! ```text
//! the recipe and its optimizer         here
//! the other sections                   head.rs, train.rs, schedule.rs, images.rs, records.rs
//! keys that may be off or derived      optional.rs
//! reading and overriding               keys.rs, a value of a key: values.rs, what can be wrong: error.rs
//! built-in recipes                     named.rs
//! the library's types, validation      settings.rs
//! ```

mod error;
mod head;
mod images;
pub mod keys;
pub mod named;
mod optional;
mod records;
mod schedule;
mod settings;
mod train;
pub(crate) mod values;

use std::collections::BTreeMap;

use fixnorm::base::BaseName;
use fixnorm::{Constraint, DecayKind, DecayTarget, Radius, Role, Scope, StepRule};
use serde::{Deserialize, Serialize};

pub use error::RecipeError;
pub use head::{Head, HeadControl};
pub use images::{Augment, Eval, Loader};
pub use records::{Checkpoint, Log};
pub use schedule::{Follow, Replay, Schedule};
pub use train::Train;

/// A training run, as its user describes it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Recipe {
    /// Model id.
    pub model: String,
    /// Data, as `fixnorm_data::DataSpec` reads it.
    pub data: String,
    /// Weights to start from; `none` is a random initialization. For other classes the final layer is new.
    #[serde(with = "optional::none")]
    pub init: Option<String>,
    /// Whether `init` may provide only a part of the weights.
    pub allow_partial: bool,
    /// Length and loss.
    pub train: Train,
    /// Update rule, norms of scale-invariant weights, decay.
    pub optimizer: Optimizer,
    /// Norm of the final linear layer.
    pub head: Head,
    /// Learning rate over time.
    pub schedule: Schedule,
    /// The record of another run to follow instead.
    pub replay: Replay,
    /// Augmentation of training images.
    pub augment: Augment,
    /// Prediction in validation and test.
    pub eval: Eval,
    /// Loading of images.
    pub loader: Loader,
    /// Recorded values.
    pub log: Log,
    /// Kept checkpoints.
    pub checkpoint: Checkpoint,
    /// Roles set by the user: path, in which `*` matches any text, to role.
    pub roles: BTreeMap<String, Role>,
    /// Factors of the learning rate, or of the angle: path, in which `*` matches any text, to factor. A later match replaces
    /// an earlier one, in the order of the patterns' names.
    pub lr_scale: BTreeMap<String, f64>,
}

/// Update, norms of scale-invariant weights, decay.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Optimizer {
    /// How a gradient becomes a direction.
    pub base: BaseName,
    /// Peak learning rate: under `step_rule = "angular"` an angle in radians, else the factor of the step, whose effective
    /// learning rate is `lr`/ρ² where a norm ρ is held. `auto` is the angle that `fixnorm_tune::law` expects to be best
    /// for the run's number of steps and its batch size, and 0.2 under the other rules.
    #[serde(with = "optional::derived")]
    pub lr: Option<f64>,
    /// For `sgd`, `nesterov` and `rmsprop`.
    pub momentum: f64,
    /// For `rmsprop`: decay of the average of squared gradients.
    #[serde(alias = "alpha")]
    pub rms_decay: f64,
    /// For `adamw`.
    pub beta1: f64,
    /// For `adamw`.
    pub beta2: f64,
    /// For `rmsprop`, inside the root, and `adamw`; `auto` is 1e-3 and 1e-8.
    #[serde(with = "optional::auto")]
    pub epsilon: Option<f64>,
    /// What holds the norm of scale-invariant weights: `fixed`, `capped` or `free`.
    pub constraint: Constraint,
    /// Their norm: `unit`, `init`, `sqrt_c_out` or a number.
    pub radius: Radius,
    /// What a norm is taken over, and an angle: `tensor` or `output_channel`; `auto` is `output_channel` under
    /// `step_rule = "angular"` and `tensor` under the other rules. A weight whose channels are not scale-invariant one by one is
    /// taken as a whole.
    #[serde(with = "optional::derived")]
    pub scope: Option<Scope>,
    /// Step rule of scale-invariant weights, from a direction to a step: `raw`; `angular`, whose learning rate is an angle in
    /// radians; `rms_normalized`; `trust_ratio`, which then holds for all weights. `auto` is `angular` where `constraint`
    /// controls norms and `raw` where it is `free`.
    #[serde(with = "optional::derived")]
    pub step_rule: Option<StepRule>,
    /// Step rule of gains, biases and other weights that are neither scale-invariant nor the head.
    pub free_step_rule: StepRule,
    /// Factor of their learning rate; `auto` is 4 for `sgd` and `nesterov` under `step_rule = "angular"`, else 1.
    #[serde(with = "optional::derived")]
    pub free_lr_scale: Option<f64>,
    /// For baselines.
    pub weight_decay: f64,
    /// Largest norm of the gradient, over all parameters together.
    #[serde(with = "optional::none")]
    pub clip_norm: Option<f64>,
    /// `l2` or `decoupled`.
    pub decay_kind: DecayKind,
    /// `all_weights`, `scale_invariant`, `head` or `all_parameters`.
    pub decay_target: DecayTarget,
}

impl Default for Recipe {
    fn default() -> Self {
        Self {
            model: "resnet8".to_owned(),
            data: "fashion-mnist-mini".to_owned(),
            init: None,
            allow_partial: false,
            train: Train::default(),
            optimizer: Optimizer::default(),
            head: Head::default(),
            schedule: Schedule::default(),
            replay: Replay::default(),
            augment: Augment::default(),
            eval: Eval::default(),
            loader: Loader::default(),
            log: Log::default(),
            checkpoint: Checkpoint::default(),
            roles: BTreeMap::new(),
            lr_scale: BTreeMap::new(),
        }
    }
}

impl Default for Optimizer {
    fn default() -> Self {
        Self {
            base: BaseName::Sgd,
            lr: None,
            momentum: 0.9,
            rms_decay: 0.9,
            beta1: 0.9,
            beta2: 0.999,
            epsilon: None,
            constraint: Constraint::Fixed,
            radius: Radius::SqrtCOut,
            scope: None,
            step_rule: None,
            free_step_rule: StepRule::Raw,
            free_lr_scale: None,
            weight_decay: 0.0,
            clip_norm: None,
            decay_kind: DecayKind::L2,
            decay_target: DecayTarget::AllWeights,
        }
    }
}
