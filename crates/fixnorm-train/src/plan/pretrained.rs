//! Preprocessing and class names for the weights of others, which do not contain them.
//! Not here: weights that fixnorm wrote, which contain both (`weights/bundle.rs`).
//!
//! Preprocessing is that of timm 1.0 (torchvision for ShuffleNet) for a model's default pretrained weights.

use fixnorm_data::imagenet::STATISTICS as IMAGENET;
use fixnorm_data::{Interpolation, Normalization, Preprocessing, Resize};
use fixnorm_nn::ModelSpec;

/// Pixels from −1 to 1, as TensorFlow's models have them.
const INCEPTION: ([f32; 3], [f32; 3]) = ([0.5; 3], [0.5; 3]);

/// The preprocessing of weights for color images that others trained.
pub(crate) fn preprocessing(spec: &ModelSpec) -> Preprocessing {
    use Interpolation::{Bicubic, Bilinear};
    let (crop_ratio, interpolation, (mean, std)) = match spec.name {
        "resnet18" | "resnet50" => (0.95, Bicubic, IMAGENET),
        "tf_efficientnet_lite0" => (0.875, Bicubic, INCEPTION),
        "shufflenet_v2_x1_0" => (0.875, Bilinear, IMAGENET),
        _ => (0.875, Bicubic, IMAGENET),
    };
    Preprocessing {
        shape: [spec.resolution, spec.resolution, 3],
        crop_ratio,
        interpolation,
        normalization: Normalization { mean: mean.to_vec(), std: std.to_vec() },
    }
}

/// The resizing of images of any size to the model's resolution, the same for training as for weights of others.
pub(crate) fn resize(spec: &ModelSpec) -> Resize {
    let Preprocessing { crop_ratio, interpolation, .. } = preprocessing(spec);
    Resize { crop_ratio, interpolation }
}

/// Class names of weights that others trained: ImageNet-1k's for 1,000 classes, else their indices.
pub(crate) fn class_names(classes: usize) -> Vec<String> {
    match classes {
        1000 => fixnorm_data::imagenet::class_names().map(str::to_owned).collect(),
        _ => (0..classes).map(|class| class.to_string()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thousand_classes_are_imagenets() {
        let names = class_names(1000);
        assert_eq!(names.len(), 1000);
        assert_eq!((names[0].as_str(), names[282].as_str()), ("tench, Tinca tinca", "tiger cat"));
        assert_eq!(names[999].split(',').next(), Some("toilet tissue"));
        assert_eq!(class_names(3), ["0", "1", "2"]);
    }

    #[test]
    fn timms_crop_of_a_resnet_is_wider() {
        let of = |name| preprocessing(ModelSpec::find(name).unwrap());
        assert_eq!(of("resnet50").crop_ratio, 0.95);
        assert_eq!(of("mobilenetv2_100").shape, [224, 224, 3]);
    }
}
