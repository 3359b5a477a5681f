//! A model's row in the registry, and the configuration that a model is built from.
//! Not here: the rows (`registry.rs`), the architectures (one file a family).

use burn::tensor::Device;

use super::classifier::{Classifier, ClassifierOptions, ClassifierParts, Input};
use super::init::seeded;
use crate::blocks::ConvStyle;

/// A library that builds a model of the same name and structure, and loads its weights strictly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Library {
    /// timm.
    Timm,
    /// torchvision.
    Torchvision,
    /// This one alone.
    Fixnorm,
}

/// A model of the registry.
#[derive(Clone, Copy, Debug)]
pub struct ModelSpec {
    /// The id.
    pub name: &'static str,
    /// Side of the images in the reference, in pixels; others work as well.
    pub resolution: usize,
    /// Channels and classes in the reference.
    pub input: Input,
    /// Inputs of the final layer.
    pub num_features: usize,
    /// Padding and normalization in the reference.
    pub style: ConvStyle,
    /// The library that the weights travel to.
    pub library: Library,
    pub(crate) build: fn(&ModelConfig, &Device) -> Classifier,
    pub(crate) timm_name: fn(&str) -> String,
}

impl ModelSpec {
    /// Name of the first convolution in the weights' file.
    pub fn first_conv(&self) -> String {
        self.layer("stem.conv.weight")
    }

    /// Name of the final layer in the weights' file.
    pub fn classifier(&self) -> String {
        self.layer("fc.weight")
    }

    fn layer(&self, weight: &str) -> String {
        let name = (self.timm_name)(weight);
        name.strip_suffix(".weight").unwrap_or(&name).to_owned()
    }

    /// The reference's configuration for these channels and classes, without dropout and drop path.
    pub fn config(&'static self, input: Input) -> ModelConfig {
        ModelConfig { spec: self, input, style: self.style, dropout: 0.0, drop_path: 0.0 }
    }

    /// Trainable parameters, and multiply-accumulates of one image, counted from the model.
    pub fn count(&'static self) -> (usize, u64) {
        let model = (self.build)(&self.config(self.input), &Device::flex().autodiff());
        (model.params(), model.macs(self.resolution, self.resolution))
    }

    /// The model of [`config`](Self::config) on `device`, initialized from `seed` alone.
    pub fn init(&'static self, input: Input, seed: u64, device: &Device) -> Classifier {
        self.config(input).init(seed, device)
    }
}

/// Configuration of a model of the registry.
///
/// Dropout and drop path are off, as in timm's models. The sources train with:
/// EfficientNet-B0 (Tan and Le 2019) 0.2 and 0.2, EfficientNet-Lite0 (its authors' code) 0.2 and 0.2,
/// MobileNetV2 (TensorFlow's slim) dropout 0.2, MobileNetV3 (Howard et al. 2019) dropout 0.2, MnasNet
/// (Tan et al. 2018) dropout 0.2, ResNets and ShuffleNetV2 neither.
#[derive(Clone, Copy, Debug)]
pub struct ModelConfig {
    /// The model.
    pub spec: &'static ModelSpec,
    /// Channels and classes.
    pub input: Input,
    /// Padding and normalization; the reference's unless replaced. The maximum after a stem always has symmetric
    /// padding.
    pub style: ConvStyle,
    /// Probability in training that a feature is zeroed before the final layer.
    pub dropout: f64,
    /// Probability in training that the path of the last block is left out; it rises linearly from 0 over the blocks
    /// (Huang et al. 2016). Blocks without a shortcut keep their path.
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

    /// The model on `device`. A parameter's initial value depends on `seed` and the parameter's path alone.
    pub fn init(&self, seed: u64, device: &Device) -> Classifier {
        seeded((self.spec.build)(self, device), seed)
    }

    /// A classifier of these parts with this configuration's options.
    pub(super) fn classifier(&self, parts: ClassifierParts, device: &Device) -> Classifier {
        let options = ClassifierOptions {
            classes: self.input.classes,
            dropout: self.dropout,
            drop_path: self.drop_path,
        };
        Classifier::new(parts, options, device)
    }
}
