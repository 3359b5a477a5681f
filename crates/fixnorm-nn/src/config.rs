//! What a model is built with besides its architecture.
//! Not here: the architectures (one file a family), which of them there are (`registry.rs`).

use burn::tensor::Device;

use crate::block::ConvStyle;
use crate::classifier::{Classifier, Input};
use crate::registry::ModelSpec;

/// Configuration of a model of the registry.
///
/// Dropout and drop path are off, as timm builds its models. What the sources train with:
/// EfficientNet-B0 (Tan and Le 2019) 0.2 and 0.2, EfficientNet-Lite0 (its authors' code) 0.2 and 0.2,
/// MobileNetV2 (TensorFlow's slim) dropout 0.2, MobileNetV3 (Howard et al. 2019) dropout 0.2, MnasNet
/// (Tan et al. 2018) dropout 0.2; residual nets and ShuffleNetV2 neither.
#[derive(Clone, Copy, Debug)]
pub struct ModelConfig {
    /// The model.
    pub spec: &'static ModelSpec,
    /// Channels and classes.
    pub input: Input,
    /// Padding and normalization; the reference's unless replaced. The maximum after a stem is always
    /// padded symmetrically.
    pub style: ConvStyle,
    /// Probability that a feature is left out before the final layer, in training.
    pub dropout: f64,
    /// Probability that a block's path is left out in training, for the last block; it rises linearly
    /// from 0 over the blocks (Huang et al. 2016), and concerns blocks with a shortcut alone.
    pub drop_path: f64,
}

impl ModelConfig {
    /// Replaces the dropout.
    ///
    /// # Panics
    /// If it is not in `0.0..1.0`.
    pub fn with_dropout(mut self, dropout: f64) -> Self {
        assert!((0.0..1.0).contains(&dropout), "dropout is {dropout}; it takes 0 up to below 1");
        self.dropout = dropout;
        self
    }

    /// Replaces the drop path.
    ///
    /// # Panics
    /// If it is not in `0.0..1.0`.
    pub fn with_drop_path(mut self, drop_path: f64) -> Self {
        assert!(
            (0.0..1.0).contains(&drop_path),
            "drop path is {drop_path}; it takes 0 up to below 1"
        );
        self.drop_path = drop_path;
        self
    }

    /// Replaces padding and normalization.
    pub fn with_style(mut self, style: ConvStyle) -> Self {
        self.style = style;
        self
    }

    /// The model on `device`, initialized from `seed` alone (see [`init`](crate::init)).
    pub fn init(&self, seed: u64, device: &Device) -> Classifier {
        crate::init::seeded((self.spec.build)(self, device), seed)
    }
}
