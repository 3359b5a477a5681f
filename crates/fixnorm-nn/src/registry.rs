//! The models, one row each. Parameters and multiplications are counted from the model itself.

use burn::tensor::Device;

use crate::classifier::{Classifier, Input};
use crate::{mobile, resnet};

/// A model of the registry.
#[derive(Clone, Copy, Debug)]
pub struct ModelSpec {
    /// The id.
    pub name: &'static str,
    /// Side of the pictures it is made for, in pixels; others work as well.
    pub resolution: usize,
    /// Channels and classes that [`count`](Self::count) takes.
    pub input: Input,
    build: fn(Input, &Device) -> Classifier,
    pub(crate) timm_name: fn(&str) -> String,
}

const CIFAR: Input = Input { channels: 3, classes: 10 };

const IMAGENET: Input = Input { channels: 3, classes: 1000 };

static MODELS: [ModelSpec; 5] = [
    ModelSpec {
        name: "resnet8",
        resolution: 32,
        input: CIFAR,
        build: |input, device| resnet::cifar_resnet(1, input, device),
        timm_name: resnet::timm_name,
    },
    ModelSpec {
        name: "resnet20",
        resolution: 32,
        input: CIFAR,
        build: |input, device| resnet::cifar_resnet(3, input, device),
        timm_name: resnet::timm_name,
    },
    ModelSpec {
        name: "resnet50",
        resolution: 224,
        input: IMAGENET,
        build: resnet::resnet50,
        timm_name: resnet::timm_name,
    },
    ModelSpec {
        name: "mobilenetv2_100",
        resolution: 224,
        input: IMAGENET,
        build: mobile::mobilenet_v2,
        timm_name: mobile::timm_name,
    },
    ModelSpec {
        name: "efficientnet_b0",
        resolution: 224,
        input: IMAGENET,
        build: mobile::efficientnet_b0,
        timm_name: mobile::timm_name,
    },
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

    /// Trainable parameters, and multiply-accumulates of one picture, counted from the model.
    pub fn count(&self) -> (usize, u64) {
        let model = (self.build)(self.input, &Device::flex().autodiff());
        (model.params(), model.macs(self.resolution, self.resolution))
    }

    /// The model on `device`, its parameters not made yet.
    pub(crate) fn build(&self, input: Input, device: &Device) -> Classifier {
        (self.build)(input, device)
    }

    /// The model on `device`, initialized from `seed` alone (see [`init`](crate::init)).
    pub fn init(&self, input: Input, seed: u64, device: &Device) -> Classifier {
        crate::init::seeded((self.build)(input, device), seed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_agree_with_the_published_nets() {
        let device = Device::flex().autodiff();
        // He et al. 2015, table 6: 0.27 M; the exact figure is that of the common PyTorch form.
        let resnet20 = ModelSpec::find("resnet20").unwrap().init(CIFAR, 0, &device);
        assert_eq!(resnet20.params(), 269_722);
        // By hand: 9·(3·16 + 6·16²)·32² + 9·(16·32 + 5·32²)·16² + 9·(32·64 + 5·64²)·8² + 640.
        assert_eq!(resnet20.macs(32, 32), 40_551_040);
        // timm's figures; multiplications by hand or as published, within rounding.
        for (name, params, macs) in [
            ("resnet50", 25_557_032, 4.09e9),
            ("mobilenetv2_100", 3_504_872, 300.8e6),
            ("efficientnet_b0", 5_288_548, 385.9e6),
        ] {
            let (own, counted) = ModelSpec::find(name).unwrap().count();
            assert_eq!(own, params, "{name}");
            assert!((counted as f64 / macs - 1.0).abs() < 0.005, "{name}: {counted}");
        }
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
