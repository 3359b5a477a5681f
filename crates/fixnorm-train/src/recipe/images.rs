//! Keys of `[augment]`, `[eval]` and `[loader]`: from image files to batches.

use std::path::Path;
use std::sync::Arc;

use fixnorm_data::cache::Cache;
use fixnorm_data::{Crop, DataError, Erasing, Interpolation, Policy, Transform};
use serde::{Deserialize, Serialize};

use crate::recipe::optional;

/// Augmentation of training images.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Augment {
    /// `padded`, `random_resized` or `center`; `auto` is `padded` where images have the model's shape, else
    /// `random_resized`.
    #[serde(with = "optional::auto")]
    pub crop: Option<Crop>,
    /// For `padded`: pixels added on each side before a random crop to the original size.
    pub crop_padding: usize,
    /// For `random_resized`: images whose shorter side has more pixels are first resized to this, which is the size that
    /// `loader.cache` keeps them in. With a cache `none` is twice the longer side of the model's image.
    #[serde(with = "optional::none")]
    pub max_shorter_side: Option<usize>,
    /// For `random_resized`: least and greatest share of the image's area.
    pub scale: [f64; 2],
    /// For `random_resized`: least and greatest ratio of width to height.
    pub ratio: [f64; 2],
    /// Filter of resizing and geometric augmentation: `bilinear` or `bicubic`; `auto` is the model's own.
    #[serde(with = "optional::auto")]
    pub interpolation: Option<Interpolation>,
    /// Decode photographs at their own scale, even where a half, a quarter or an eighth of it has at least twice the
    /// pixels of the model's image. Validation and prediction always do.
    pub exact_decode: bool,
    /// Share of the images that are mirrored.
    pub hflip: f64,
    /// Brightness, contrast, saturation: largest distance of the factor from 1; hue: largest rotation.
    pub color_jitter: [f64; 4],
    /// `imagenet` (AutoAugment), a RandAugment such as `rand-m9-mstd0.5-inc1`, or `trivial`.
    #[serde(with = "optional::none")]
    pub auto_augment: Option<Policy>,
    /// Share of the images of which a rectangle is erased.
    pub random_erasing: f64,
    /// What fills the rectangle: `constant`, `color` or `pixel`.
    pub erasing: Erasing,
    /// Parameter of mixup's beta distribution.
    #[serde(with = "optional::none")]
    pub mixup: Option<f64>,
    /// Parameter of CutMix's beta distribution.
    #[serde(with = "optional::none")]
    pub cutmix: Option<f64>,
    /// Times an image is repeated in an epoch, augmented differently each time. An epoch keeps its length, so it has
    /// fewer distinct images.
    pub repeats: usize,
}

/// Prediction in validation and test.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Eval {
    /// Epochs between two validations. The last epoch is validated, too.
    pub every_epochs: usize,
    /// Average the logits of an image and of its mirror image.
    pub flip: bool,
    /// Side of an image in pixels; `auto` is that of training.
    #[serde(with = "optional::auto")]
    pub resolution: Option<usize>,
    /// Share of a resized image's shorter side that is kept, where images are resized; `auto` is the model's own.
    #[serde(with = "optional::auto")]
    pub crop_ratio: Option<f64>,
}

/// Loading of images. Changes no result, except whether a run with bad images continues.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Loader {
    /// Threads; 0 makes batches in the training thread.
    pub workers: usize,
    /// Batches a worker makes ahead.
    pub prefetch: usize,
    /// Share of a split's images that may be skipped because they cannot be read; above it the run stops.
    pub max_bad: f64,
    /// Where decoded training and validation images are kept between epochs: `ram`, or a directory, which later runs use
    /// too.
    #[serde(with = "optional::none")]
    pub cache: Option<String>,
    /// Most GiB that the cache takes. What does not fit is decoded in every epoch.
    pub cache_gib: f64,
}

impl Default for Eval {
    fn default() -> Self {
        Self { every_epochs: 1, flip: false, resolution: None, crop_ratio: None }
    }
}

impl Default for Augment {
    fn default() -> Self {
        let Transform { scale, ratio, color_jitter, .. } = Transform::default();
        Self {
            crop: None,
            crop_padding: 2,
            max_shorter_side: None,
            scale,
            ratio,
            interpolation: None,
            exact_decode: false,
            hflip: 0.5,
            color_jitter,
            auto_augment: None,
            random_erasing: 0.0,
            erasing: Erasing::default(),
            mixup: None,
            cutmix: None,
            repeats: 1,
        }
    }
}

impl Default for Loader {
    fn default() -> Self {
        Self { workers: 1, prefetch: 4, max_bad: 0.001, cache: None, cache_gib: 4.0 }
    }
}

impl Loader {
    /// The shorter side that a cache keeps images in to be cropped at random, for a model's image of `shape`.
    pub(crate) fn kept_side(shape: [usize; 3]) -> usize {
        2 * shape[0].max(shape[1])
    }

    /// The cache for a run's images.
    ///
    /// # Errors
    /// A directory that cannot be made or listed.
    pub(crate) fn open_cache(&self) -> Result<Option<Arc<Cache>>, DataError> {
        let bytes = (self.cache_gib * f64::from(1 << 30)) as u64;
        let Some(place) = &self.cache else { return Ok(None) };
        let cache = match place.as_str() {
            "ram" => Cache::memory(bytes),
            dir => Cache::directory(Path::new(dir), bytes)?,
        };
        Ok(Some(Arc::new(cache)))
    }
}
