//! Keys of `[train]`: length, loss, precision, averaging.

use fixnorm_nn::{Loss, Precision, Recompute};
use serde::{Deserialize, Serialize};

use crate::recipe::optional;

/// Length and loss.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Train {
    /// Passes over the training images.
    pub epochs: usize,
    /// Images of a batch.
    pub batch_size: usize,
    /// Batches of a step; their gradients are averaged.
    pub accumulate: usize,
    /// Side of an image in pixels; `auto` is the data's own, or the model's where images have any size.
    #[serde(with = "optional::auto")]
    pub resolution: Option<usize>,
    /// Side of an image in the first epoch, from which it grows to `resolution` in multiples of 32.
    #[serde(with = "optional::none")]
    pub start_resolution: Option<usize>,
    /// Seed of initialization, image order, augmentation, dropout and drop path.
    pub seed: u64,
    /// `cross_entropy`, or `bce`: binary cross-entropy of each class.
    pub loss: Loss,
    /// For `bce`: targets above it count as 1, all others as 0; `none` leaves targets as they are.
    #[serde(with = "optional::none")]
    pub bce_threshold: Option<f64>,
    /// Share of the target spread evenly over all classes.
    pub label_smoothing: f64,
    /// Probability that a feature is dropped before the final layer.
    pub dropout: f64,
    /// Probability that the last block's path is dropped; it rises linearly from 0 at the first block.
    pub drop_path: f64,
    /// Precision of activations and of the operands of matrix products: `f32` or `bf16`.
    pub precision: Precision,
    /// What the backward pass computes again instead of keeping it: `none`, or `blocks`, everything inside a block: less
    /// memory for another forward pass's time, the same run to the bit. On CPUs.
    pub recompute: Recompute,
    /// With several devices: batch norm uses the statistics of the whole batch, for which devices wait for each other,
    /// instead of each device's own share.
    pub sync_batch_norm: bool,
    /// Decay of a moving average of weights and running statistics. The average is what is validated, tested and exported.
    #[serde(with = "optional::none")]
    pub ema_decay: Option<f64>,
    /// Average less at the start: after t updates the decay is at most (1 + t)/(10 + t).
    pub ema_warmup: bool,
}

impl Default for Train {
    fn default() -> Self {
        Self {
            epochs: 16,
            batch_size: 64,
            resolution: None,
            start_resolution: None,
            accumulate: 1,
            seed: 0,
            loss: Loss::CrossEntropy,
            bce_threshold: None,
            label_smoothing: 0.1,
            dropout: 0.0,
            drop_path: 0.0,
            sync_batch_norm: false,
            precision: Precision::F32,
            recompute: Recompute::None,
            ema_decay: None,
            ema_warmup: true,
        }
    }
}
