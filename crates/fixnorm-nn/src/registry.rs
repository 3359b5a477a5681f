//! The models, one row each. Parameters and multiplications are counted from the model itself.

use burn::tensor::Device;

use crate::block::{ConvStyle, Padding};
use crate::classifier::{Classifier, Input};
use crate::config::ModelConfig;
use crate::{mobile, mobile_v3, resnet, shufflenet};

/// A model of the registry.
#[derive(Clone, Copy, Debug)]
pub struct ModelSpec {
    /// The id.
    pub name: &'static str,
    /// Side of the pictures it is made for, in pixels; others work as well.
    pub resolution: usize,
    /// Channels and classes that [`count`](Self::count) takes.
    pub input: Input,
    /// Padding and normalization as the reference has them.
    pub style: ConvStyle,
    pub(crate) build: fn(&ModelConfig, &Device) -> Classifier,
    pub(crate) timm_name: fn(&str) -> String,
}

const CIFAR: Input = Input { channels: 3, classes: 10 };

const IMAGENET: Input = Input { channels: 3, classes: 1000 };

const PYTORCH: ConvStyle = ConvStyle { padding: Padding::Symmetric, epsilon: 1e-5, momentum: 0.1 };

/// TensorFlow's padding and epsilon with timm's momentum.
const TENSORFLOW: ConvStyle = ConvStyle { padding: Padding::Same, epsilon: 1e-3, momentum: 0.1 };

/// A row for ImageNet at 224 pixels in PyTorch's style.
const fn imagenet(
    name: &'static str,
    build: fn(&ModelConfig, &Device) -> Classifier,
    timm_name: fn(&str) -> String,
) -> ModelSpec {
    ModelSpec { name, resolution: 224, input: IMAGENET, style: PYTORCH, build, timm_name }
}

const fn cifar(
    name: &'static str,
    build: fn(&ModelConfig, &Device) -> Classifier,
    timm_name: fn(&str) -> String,
) -> ModelSpec {
    ModelSpec { resolution: 32, input: CIFAR, ..imagenet(name, build, timm_name) }
}

static MODELS: [ModelSpec; 14] = [
    cifar("resnet8", |config, device| resnet::cifar(1, config, device), resnet::timm_name),
    cifar("resnet20", |config, device| resnet::cifar(3, config, device), resnet::timm_name),
    imagenet("resnet18", resnet::resnet18, resnet::timm_name),
    imagenet("resnet50", resnet::resnet50, resnet::timm_name),
    imagenet("mobilenetv2_100", mobile::mobilenet_v2_100, mobile::timm_name),
    imagenet("mobilenetv2_140", mobile::mobilenet_v2_140, mobile::timm_name),
    imagenet("mobilenetv2_b0", mobile::mobilenet_v2_b0, mobile::timm_name),
    imagenet("mobilenetv2_b0_plain", mobile::mobilenet_v2_b0_plain, mobile::timm_name),
    imagenet("efficientnet_b0", mobile::efficientnet_b0, mobile::timm_name),
    imagenet("efficientnet_lite0", mobile::efficientnet_lite0, mobile::timm_name),
    ModelSpec {
        style: TENSORFLOW,
        ..imagenet("tf_efficientnet_lite0", mobile::efficientnet_lite0, mobile::timm_name)
    },
    imagenet("semnasnet_100", mobile::mnasnet_a1, mobile::timm_name),
    imagenet("mobilenetv3_large_100", mobile_v3::large, mobile_v3::timm_name),
    imagenet("shufflenet_v2_x1_0", shufflenet::x1_0, shufflenet::torchvision_name),
];

/// All models.
pub fn models() -> &'static [ModelSpec] {
    &MODELS
}

/// A name that no model has.
#[derive(Debug, thiserror::Error)]
#[error("unknown model `{name}`; did you mean `{nearest}`? Models: {known}")]
pub struct UnknownModel {
    /// The name as given.
    pub name: String,
    /// The model whose name is most like it.
    pub nearest: &'static str,
    /// All names.
    pub known: String,
}

impl ModelSpec {
    /// The model of this name.
    ///
    /// # Errors
    /// [`UnknownModel`] names the nearest one.
    pub fn find(name: &str) -> Result<&'static ModelSpec, UnknownModel> {
        MODELS.iter().find(|model| model.name == name).ok_or_else(|| {
            let names = || MODELS.iter().map(|model| model.name);
            let alike = |model: &&str| strsim::jaro_winkler(name, model);
            UnknownModel {
                name: name.to_owned(),
                nearest: names().max_by(|a, b| alike(a).total_cmp(&alike(b))).unwrap_or_default(),
                known: names().collect::<Vec<_>>().join(", "),
            }
        })
    }

    /// The model as the reference has it, for these channels and classes, without dropout and drop path.
    pub fn config(&'static self, input: Input) -> ModelConfig {
        ModelConfig { spec: self, input, style: self.style, dropout: 0.0, drop_path: 0.0 }
    }

    /// Trainable parameters, and multiply-accumulates of one picture, counted from the model.
    pub fn count(&'static self) -> (usize, u64) {
        let model = (self.build)(&self.config(self.input), &Device::flex().autodiff());
        (model.params(), model.macs(self.resolution, self.resolution))
    }

    /// [`config`](Self::config) without changes, on `device`, initialized from `seed` alone (see
    /// [`init`](crate::init)).
    pub fn init(&'static self, input: Input, seed: u64, device: &Device) -> Classifier {
        self.config(input).init(seed, device)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_small_nets_are_those_by_hand() {
        let device = Device::flex().autodiff();
        // He et al. 2015, table 6: 0.27 M; the exact figure is that of the common PyTorch form.
        let resnet20 = ModelSpec::find("resnet20").unwrap().init(CIFAR, 0, &device);
        assert_eq!(resnet20.params(), 269_722);
        // By hand: 9·(3·16 + 6·16²)·32² + 9·(16·32 + 5·32²)·16² + 9·(32·64 + 5·64²)·8² + 640.
        assert_eq!(resnet20.macs(32, 32), 40_551_040);
        let grey = Input { channels: 1, classes: 10 };
        let resnet8 = ModelSpec::find("resnet8").unwrap().init(grey, 0, &device);
        // By hand: 9·(16 + 2·16² + 16·32 + 32² + 32·64 + 64²) + 2·(3·16 + 2·32 + 2·64) + 65·10.
        assert_eq!(resnet8.params(), 75_002);
    }

    #[test]
    fn unknown_model_names_the_nearest() {
        let error = ModelSpec::find("resnet_20").unwrap_err();
        assert_eq!(error.nearest, "resnet20");
        assert!(error.to_string().contains("resnet8, resnet20"));
    }
}
