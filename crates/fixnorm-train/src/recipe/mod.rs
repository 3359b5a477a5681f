//! What a user can choose: the recipe, one struct a section, every key with a default.
//! Not here: reading and overriding it (`keys.rs`), what its keys come to (`settings.rs`).

pub mod keys;
pub mod named;
mod settings;

use std::collections::BTreeMap;

use fixnorm::{Constraint, DecayKind, DecayTarget, Radius, Role, Scope, StepRule};
use fixnorm_data::{Erasing, Policy, Transform};
use fixnorm_nn::Precision;
use serde::{Deserialize, Serialize};

/// A training run, as its user describes it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Recipe {
    /// Model id.
    pub model: String,
    /// Data, as `fixnorm_data::DataSpec` reads it.
    pub data: String,
    /// Weights to start from; empty for a fresh initialization. The final layer is new where they are for
    /// other classes.
    pub init: String,
    /// Whether `init` may give a part of the weights.
    pub allow_partial: bool,
    /// Length and loss.
    pub train: Train,
    /// Update, norms of scale-invariant weights, decay.
    pub optimizer: Optimizer,
    /// Norm of the final linear layer.
    pub head: Head,
    /// Learning rate over time.
    pub schedule: Schedule,
    /// The record of another run, to follow instead.
    pub replay: Replay,
    /// Random changes of training pictures.
    pub augment: Augment,
    /// How validation and test predict.
    pub eval: Eval,
    /// How pictures are made ready.
    pub loader: Loader,
    /// What is recorded.
    pub log: Log,
    /// What is kept.
    pub checkpoint: Checkpoint,
    /// Roles set by hand: path, in which `*` stands for any text, to role.
    pub roles: BTreeMap<String, Role>,
}

/// Length and loss.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Train {
    /// Passes over the training pictures.
    pub epochs: usize,
    /// Pictures that are computed at once.
    pub batch_size: usize,
    /// Batches a step: their gradients are averaged.
    pub accumulate: usize,
    /// Side of a picture in pixels; 0 for the data's own, or the model's where pictures have any size.
    pub resolution: usize,
    /// Side of a picture in the first epoch, from which it grows to `resolution` in multiples of 32; 0 for no growth.
    pub start_resolution: usize,
    /// Decides initialization, order, augmentation and what is dropped.
    pub seed: u64,
    /// `cross_entropy`, or `bce`: each class for itself, yes or no.
    pub loss: LossName,
    /// Of `bce`: a class whose target is above it counts in full, any other not at all; 0 for targets as they are.
    pub bce_threshold: f64,
    /// Share of the target spread evenly over all classes.
    pub label_smoothing: f64,
    /// Probability that a feature is left out before the final layer.
    pub dropout: f64,
    /// Probability that a block's path is left out, for the last block; rises linearly from 0.
    pub drop_path: f64,
    /// How activations are stored and what products are made of: `f32` or `bf16`.
    pub precision: PrecisionName,
    /// Of several devices: normalize by the statistics of the whole batch, for which they wait for each other, instead of each
    /// its share.
    pub sync_batch_norm: bool,
    /// Decay of a moving average of weights and running statistics, which is then what is validated, tested and
    /// exported; 0 for none.
    pub ema_decay: f64,
    /// Average less at the start: the decay of an update that t others precede is at most (1 + t)/(10 + t).
    pub ema_warmup: bool,
}

/// A training loss by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LossName {
    /// Softmax cross-entropy.
    CrossEntropy,
    /// Binary cross-entropy.
    Bce,
}

/// A precision by name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PrecisionName {
    /// 32 bits throughout.
    #[default]
    F32,
    /// Activations and operands of products in bf16; weights, statistics, norms and sums in f32.
    Bf16,
}

impl From<PrecisionName> for Precision {
    fn from(name: PrecisionName) -> Self {
        match name {
            PrecisionName::F32 => Precision::F32,
            PrecisionName::Bf16 => Precision::Bf16,
        }
    }
}

/// The base update by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Base {
    /// SGD with momentum.
    Sgd,
    /// SGD with Nesterov momentum.
    Nesterov,
    /// RMSProp in TensorFlow's form.
    Rmsprop,
    /// Adam; with decoupled decay AdamW.
    Adamw,
}

/// Update, norms of scale-invariant weights, decay.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Optimizer {
    /// How a gradient becomes a direction.
    pub base: Base,
    /// Peak learning rate; with a held norm the effective learning rate is `lr`/ρ².
    pub lr: f64,
    /// Of `sgd`, `nesterov` and `rmsprop`.
    pub momentum: f64,
    /// Decay of the squared gradient's average, of `rmsprop`.
    pub alpha: f64,
    /// Of `adamw`.
    pub beta1: f64,
    /// Of `adamw`.
    pub beta2: f64,
    /// Of `rmsprop`, inside the root, and `adamw`; 0 for the usual 1e-3 and 1e-8.
    pub epsilon: f64,
    /// What holds the norm of scale-invariant weights: `fixed`, `capped` or `free`.
    pub constraint: Constraint,
    /// Their norm: `unit`, `init`, `sqrt_c_out` or a number.
    pub radius: Radius,
    /// What a norm is taken over: `tensor` or `output_channel`.
    pub scope: Scope,
    /// How a direction becomes a step of a scale-invariant weight: `raw`; `angular`, whose learning rate is an angle in
    /// radians; `rms_normalized`; `trust_ratio`, for all weights.
    pub step_rule: StepRule,
    /// The same for gains, biases and other weights that are neither scale-invariant nor the head.
    pub free_step_rule: StepRule,
    /// Factor of the learning rate for those.
    pub free_lr_scale: f64,
    /// For baselines.
    pub weight_decay: f64,
    /// Largest norm of the gradient, over all parameters together; 0 for any.
    pub clip_norm: f64,
    /// `l2` or `decoupled`.
    pub decay_kind: DecayKind,
    /// `all_weights`, `scale_invariant`, `head` or `all_parameters`.
    pub decay_target: DecayTarget,
}

/// What holds the head's norm, by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HeadMode {
    /// At α·√C.
    Fixed,
    /// At most α·√C.
    Capped,
    /// Nothing.
    Free,
    /// Weight decay on the head alone.
    Decayed,
}

/// Norm of the final linear layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Head {
    /// `fixed`, `capped`, `free` or `decayed`.
    pub control: HeadMode,
    /// RMS norm of a class's row, for `fixed` and `capped`.
    pub alpha: f64,
    /// For `decayed`.
    pub weight_decay: f64,
    /// How a direction becomes a step: `raw`, `angular`, `rms_normalized` or `trust_ratio`.
    pub step_rule: StepRule,
    /// Factor of the learning rate for the head.
    pub lr_scale: f64,
    /// Path of its weight; empty for the last linear layer.
    pub path: String,
}

/// The curve by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ShapeName {
    /// Flat.
    Constant,
    /// A straight line.
    Linear,
    /// Times `gamma` at each milestone.
    Step,
    /// Half a cosine.
    Cosine,
    /// Square root of a cosine.
    SqrtCosine,
}

impl ShapeName {
    /// The name in recipes.
    pub fn name(self) -> &'static str {
        match self {
            ShapeName::Constant => "constant",
            ShapeName::Linear => "linear",
            ShapeName::Step => "step",
            ShapeName::Cosine => "cosine",
            ShapeName::SqrtCosine => "sqrt_cosine",
        }
    }
}

/// Learning rate over time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Schedule {
    /// `constant`, `linear`, `step`, `cosine` or `sqrt_cosine`.
    pub shape: ShapeName,
    /// Linear rise before the shape begins.
    pub warmup_epochs: f64,
    /// Where the shape ends, as a share of `lr`.
    pub final_factor: f64,
    /// Of `step`, in epochs.
    pub milestones: Vec<f64>,
    /// Of `step`: a milestone every so many epochs, whole or not, instead of `milestones`; 0 for none.
    pub decay_epochs: f64,
    /// Of `step`.
    pub gamma: f64,
    /// Hold the learning rate within an epoch.
    pub per_epoch: bool,
}

/// Which part of a training picture is kept, by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CropName {
    /// `padded` where pictures have the model's shape, `random_resized` elsewhere.
    Auto,
    /// A window of the padded picture.
    Padded,
    /// A random part of random proportions, resized.
    RandomResized,
    /// The middle, after the shorter side was resized.
    Center,
}

/// A filter for resizing, by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InterpolationName {
    /// The model's own.
    Auto,
    /// Over two pixels.
    Bilinear,
    /// Over four pixels.
    Bicubic,
}

/// What of a record is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Follow {
    /// The effective learning rate of every scale-invariant weight, by a learning rate of its own.
    EffectiveLr,
    /// The norm of every scale-invariant weight, taken on before every step.
    Norms,
}

/// The record of another run, to follow.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Replay {
    /// Directory of a run with `log.trajectory`; empty for none. Its learning rates take the schedule's place.
    pub run: String,
    /// `effective_lr` or `norms`.
    pub follow: Follow,
    /// Whether the final layer takes on its recorded norms, too.
    pub head: bool,
}

/// Random changes of training pictures.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Augment {
    /// `auto`, `padded`, `random_resized` or `center`.
    pub crop: CropName,
    /// Of `padded`: pixels added on each side before a random crop to the original size.
    pub crop_padding: usize,
    /// Of `random_resized`: least and greatest share of the picture's area.
    pub scale: [f64; 2],
    /// Of `random_resized`: least and greatest width over height.
    pub ratio: [f64; 2],
    /// How pictures are resized, and pixels moved: `auto`, `bilinear` or `bicubic`.
    pub interpolation: InterpolationName,
    /// Share of the pictures that are mirrored.
    pub hflip: f64,
    /// Brightness, contrast and saturation: how far a factor may be from 1; hue: how far it may turn.
    pub color_jitter: [f64; 4],
    /// `imagenet` (AutoAugment), a RandAugment such as `rand-m9-mstd0.5-inc1`, `trivial`, or nothing.
    pub auto_augment: Policy,
    /// Share of the pictures of which a rectangle is erased.
    pub random_erasing: f64,
    /// What comes in its place: `constant`, `color` or `pixel`.
    pub erasing: Erasing,
    /// Parameter of mixup's beta distribution; 0 for none.
    pub mixup: f64,
    /// Parameter of CutMix's beta distribution; 0 for none.
    pub cutmix: f64,
    /// How often a picture comes in an epoch, changed differently each time; an epoch stays as long, and has fewer
    /// pictures.
    pub repeats: usize,
}

/// How validation and test predict.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Eval {
    /// Average the logits of a picture and of its mirror image.
    pub flip: bool,
    /// Side of a picture in pixels; 0 for that of training.
    pub resolution: usize,
    /// Share of a resized picture's shorter side that is kept, where pictures are resized; 0 for the model's own.
    pub crop_ratio: f64,
}

/// How pictures are made ready; changes no result but whether a run with bad pictures goes on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Loader {
    /// Threads; 0 makes batches in the training thread.
    pub workers: usize,
    /// Batches a worker makes ahead.
    pub prefetch: usize,
    /// Share of the pictures of a part (training, validation, test) that may be skipped because they cannot
    /// be read; the run stops past it.
    pub max_bad: f64,
}

/// What is recorded; changes no result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// Steps between two records of loss and learning rate.
    pub every_steps: usize,
    /// Steps between two measurements of every weight; 0 for none.
    pub measure_every_steps: usize,
    /// Record learning rate and norms of every step without loss, for other runs to follow.
    pub trajectory: bool,
    /// Epochs between two measurements of cross-boundary risk; 0 for none. The last epoch is measured then, too.
    pub risk_every_epochs: usize,
    /// Most pictures of a part that risk is measured on, drawn once.
    pub risk_pictures: usize,
}

/// What is kept; changes no result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Checkpoint {
    /// Checkpoints kept besides the best one.
    pub keep_last: usize,
    /// Steps between two checkpoints within an epoch; 0 for one an epoch.
    pub every_steps: usize,
}

impl Default for Recipe {
    fn default() -> Self {
        Self {
            model: "resnet8".to_owned(),
            data: "fashion-mnist-mini".to_owned(),
            init: String::new(),
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
        }
    }
}

impl Default for Train {
    fn default() -> Self {
        Self {
            epochs: 16,
            batch_size: 64,
            resolution: 0,
            start_resolution: 0,
            accumulate: 1,
            seed: 0,
            loss: LossName::CrossEntropy,
            bce_threshold: 0.0,
            label_smoothing: 0.1,
            dropout: 0.0,
            drop_path: 0.0,
            sync_batch_norm: false,
            precision: PrecisionName::F32,
            ema_decay: 0.0,
            ema_warmup: true,
        }
    }
}

impl Default for Optimizer {
    fn default() -> Self {
        Self {
            base: Base::Sgd,
            lr: 0.2,
            momentum: 0.9,
            alpha: 0.9,
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 0.0,
            constraint: Constraint::Fixed,
            radius: Radius::SqrtCOut,
            scope: Scope::Tensor,
            step_rule: StepRule::Raw,
            free_step_rule: StepRule::Raw,
            free_lr_scale: 1.0,
            weight_decay: 0.0,
            clip_norm: 0.0,
            decay_kind: DecayKind::L2,
            decay_target: DecayTarget::AllWeights,
        }
    }
}

impl Default for Head {
    fn default() -> Self {
        Self {
            control: HeadMode::Fixed,
            alpha: 1.0,
            weight_decay: 0.0,
            step_rule: StepRule::Raw,
            lr_scale: 1.0,
            path: String::new(),
        }
    }
}

impl Default for Schedule {
    fn default() -> Self {
        Self {
            shape: ShapeName::Cosine,
            warmup_epochs: 0.0,
            final_factor: 0.0,
            milestones: vec![],
            decay_epochs: 0.0,
            gamma: 0.1,
            per_epoch: false,
        }
    }
}

impl Default for Replay {
    fn default() -> Self {
        Self { run: String::new(), follow: Follow::EffectiveLr, head: false }
    }
}

impl Default for Augment {
    fn default() -> Self {
        let Transform { scale, ratio, color_jitter, auto_augment, .. } = Transform::default();
        Self {
            crop: CropName::Auto,
            crop_padding: 2,
            scale,
            ratio,
            interpolation: InterpolationName::Auto,
            hflip: 0.5,
            color_jitter,
            auto_augment,
            random_erasing: 0.0,
            erasing: Erasing::default(),
            mixup: 0.0,
            cutmix: 0.0,
            repeats: 1,
        }
    }
}

impl Default for Loader {
    fn default() -> Self {
        Self { workers: 1, prefetch: 4, max_bad: 0.001 }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self {
            every_steps: 10,
            measure_every_steps: 10,
            trajectory: false,
            risk_every_epochs: 0,
            risk_pictures: 10_000,
        }
    }
}

impl Default for Checkpoint {
    fn default() -> Self {
        Self { keep_last: 2, every_steps: 0 }
    }
}
