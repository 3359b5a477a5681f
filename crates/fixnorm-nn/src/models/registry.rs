//! The models, one row each. Parameters and multiply-accumulates are counted from the model itself.
//! Not here: the architectures (one file a family).

use burn::tensor::Device;

use super::classifier::{Classifier, Input};
use super::spec::{Library, ModelConfig, ModelSpec};
use super::{mobilenet, mobilenet_v3, resnet, shufflenet};
use crate::blocks::{ConvStyle, Padding};

const CIFAR: Input = Input { channels: 3, classes: 10 };

const IMAGENET: Input = Input { channels: 3, classes: 1000 };

const PYTORCH: ConvStyle = ConvStyle { padding: Padding::Symmetric, epsilon: 1e-5, momentum: 0.1 };

/// TensorFlow's padding and epsilon with timm's momentum.
const TENSORFLOW: ConvStyle = ConvStyle { padding: Padding::Same, epsilon: 1e-3, momentum: 0.1 };

/// A row for ImageNet at 224 pixels in PyTorch's style.
const fn imagenet(
    name: &'static str,
    num_features: usize,
    build: fn(&ModelConfig, &Device) -> Classifier,
    timm_name: fn(&str) -> String,
) -> ModelSpec {
    ModelSpec {
        name,
        resolution: 224,
        input: IMAGENET,
        num_features,
        style: PYTORCH,
        library: Library::Timm,
        build,
        timm_name,
    }
}

const fn cifar(
    name: &'static str,
    build: fn(&ModelConfig, &Device) -> Classifier,
    timm_name: fn(&str) -> String,
) -> ModelSpec {
    ModelSpec { resolution: 32, input: CIFAR, ..own(imagenet(name, 64, build, timm_name)) }
}

/// A row that no other library has.
const fn own(row: ModelSpec) -> ModelSpec {
    ModelSpec { library: Library::Fixnorm, ..row }
}

static MODELS: [ModelSpec; 14] = [
    cifar("resnet8", |config, device| resnet::cifar(1, config, device), resnet::timm_name),
    cifar("resnet20", |config, device| resnet::cifar(3, config, device), resnet::timm_name),
    imagenet("resnet18", 512, resnet::resnet18, resnet::timm_name),
    imagenet("resnet50", 2048, resnet::resnet50, resnet::timm_name),
    imagenet("mobilenetv2_100", 1280, mobilenet::mobilenet_v2_100, mobilenet::timm_name),
    imagenet("mobilenetv2_140", 1792, mobilenet::mobilenet_v2_140, mobilenet::timm_name),
    own(imagenet("mobilenetv2_b0", 1280, mobilenet::mobilenet_v2_b0, mobilenet::timm_name)),
    own(imagenet(
        "mobilenetv2_b0_plain",
        1280,
        mobilenet::mobilenet_v2_b0_plain,
        mobilenet::timm_name,
    )),
    imagenet("efficientnet_b0", 1280, mobilenet::efficientnet_b0, mobilenet::timm_name),
    imagenet("efficientnet_lite0", 1280, mobilenet::efficientnet_lite0, mobilenet::timm_name),
    ModelSpec {
        style: TENSORFLOW,
        ..imagenet(
            "tf_efficientnet_lite0",
            1280,
            mobilenet::efficientnet_lite0,
            mobilenet::timm_name,
        )
    },
    imagenet("semnasnet_100", 1280, mobilenet::mnasnet_a1, mobilenet::timm_name),
    imagenet("mobilenetv3_large_100", 1280, mobilenet_v3::large, mobilenet_v3::timm_name),
    ModelSpec {
        library: Library::Torchvision,
        ..imagenet("shufflenet_v2_x1_0", 1024, shufflenet::x1_0, shufflenet::torchvision_name)
    },
];

/// All models.
pub fn models() -> &'static [ModelSpec] {
    &MODELS
}

/// A name that is no model's.
#[derive(Debug, thiserror::Error)]
#[error("unknown model `{name}`; did you mean `{nearest}`? Models: {known}")]
pub struct UnknownModel {
    /// The name.
    pub name: String,
    /// The model with the most similar name.
    pub nearest: &'static str,
    /// All names.
    pub known: String,
}

impl ModelSpec {
    /// The model of this name.
    ///
    /// # Errors
    /// [`UnknownModel`] names the nearest model.
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_small_models_are_the_formulas() {
        let device = Device::flex().autodiff();
        // He et al. 2015, table 6, has 0.27 M; this is the number of the usual PyTorch implementation.
        let resnet20 = ModelSpec::find("resnet20").unwrap().init(CIFAR, 0, &device);
        assert_eq!(resnet20.params(), 269_722);
        // 9·(3·16 + 6·16²)·32² + 9·(16·32 + 5·32²)·16² + 9·(32·64 + 5·64²)·8² + 640.
        assert_eq!(resnet20.macs(32, 32), 40_551_040);
        let grey = Input { channels: 1, classes: 10 };
        let resnet8 = ModelSpec::find("resnet8").unwrap().init(grey, 0, &device);
        // 9·(16 + 2·16² + 16·32 + 32² + 32·64 + 64²) + 2·(3·16 + 2·32 + 2·64) + 65·10.
        assert_eq!(resnet8.params(), 75_002);
    }

    #[test]
    fn features_are_those_of_the_built_models() {
        let device = Device::flex().autodiff();
        for spec in models() {
            let model = (spec.build)(&spec.config(spec.input), &device);
            let [features, classes] = model.final_layer().weight.dims();
            assert_eq!(
                (features, classes),
                (spec.num_features, spec.input.classes),
                "{}",
                spec.name
            );
        }
    }

    #[test]
    fn layers_have_the_names_of_the_library() {
        let of = |name| {
            let spec = ModelSpec::find(name).unwrap();
            (spec.library, spec.first_conv(), spec.classifier())
        };
        let expected = |library, conv: &str, fc: &str| (library, conv.to_owned(), fc.to_owned());
        assert_eq!(of("resnet50"), expected(Library::Timm, "conv1", "fc"));
        assert_eq!(of("efficientnet_b0"), expected(Library::Timm, "conv_stem", "classifier"));
        assert_eq!(of("mobilenetv3_large_100"), expected(Library::Timm, "conv_stem", "classifier"));
        assert_eq!(of("shufflenet_v2_x1_0"), expected(Library::Torchvision, "conv1.0", "fc"));
        assert_eq!(of("resnet8").0, Library::Fixnorm);
        assert_eq!(of("mobilenetv2_b0").0, Library::Fixnorm);
    }

    #[test]
    fn unknown_model_names_the_nearest() {
        let error = ModelSpec::find("resnet_20").unwrap_err();
        assert_eq!(error.nearest, "resnet20");
        assert!(error.to_string().contains("resnet8, resnet20"));
    }
}
