//! From an image to what a model sees when it is not training: resize, centre crop, normalize.
//! Not here: random changes (`transform.rs`), which model wants what (the models' users know).

use std::ops::Range;

use crate::channels::recoloured;
use crate::image::{Part, Wanted, Window};
use crate::resize::{Interpolation, needed, reduction, resize, resize_part};
use serde::{Deserialize, Serialize};

use crate::{Crop, Image, Normalization, Transform};

/// Preprocessing for evaluation, as in timm and torchvision.
#[derive(Clone, Debug, PartialEq)]
pub struct Preprocessing {
    /// Height, width and channels (1 or 3) of what the model sees.
    pub shape: [usize; 3],
    /// Share of the resized image's shorter side that the crop keeps, above 0 and at most 1.
    pub crop_ratio: f64,
    /// The filter for resizing.
    pub interpolation: Interpolation,
    /// Normalization of the pixels.
    pub normalization: Normalization,
}

/// The way from images of any size to one shape: the shorter side resized to the shape's over `crop_ratio`,
/// and the middle cut out.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Resize {
    /// Share of the resized image's shorter side that is kept.
    pub crop_ratio: f64,
    /// The filter.
    pub interpolation: Interpolation,
}

impl From<Resize> for Transform {
    fn from(Resize { crop_ratio, interpolation }: Resize) -> Self {
        Transform {
            crop: Crop::Center,
            crop_ratio,
            interpolation,
            // As prediction sees an image, which decodes all of it.
            exact_decode: true,
            ..Transform::default()
        }
    }
}

impl Preprocessing {
    /// The part of the image that the model sees: its shorter side resized to the model's over
    /// `crop_ratio`, its middle cut out.
    ///
    /// # Panics
    /// If the image has no pixels, or either has other than 1 or 3 channels (images also 2 or 4, of
    /// which the last is alpha and dropped).
    pub fn crop(&self, image: &Image) -> Image {
        let [height, width, channels] = self.shape;
        let size = [image.height, image.width];
        let part = Part::from(recoloured(image, channels));
        Placement::of(size, [height, width], self.crop_ratio).resize(
            &part,
            size,
            self.interpolation,
        )
    }

    /// Appends what the model sees of an image, `[height, width, channels]` with the channel fastest.
    ///
    /// # Panics
    /// As [`crop`](Self::crop).
    pub fn apply(&self, image: &Image, out: &mut Vec<f32>) {
        self.normalization.apply(&self.crop(image).pixels, out);
    }
}

/// Where a model looks: the size that an image is resized to, and the window of it.
pub(crate) struct Placement {
    resized: [usize; 2],
    window: Window,
}

impl Placement {
    /// For an image of size `from` and a model of size `to`.
    pub(crate) fn of(from: [usize; 2], to: [usize; 2], crop_ratio: f64) -> Self {
        let resized = covering(from, to.map(|side| (side as f64 / crop_ratio) as usize));
        Self { resized, window: [centre(resized[0], to[0]), centre(resized[1], to[1])] }
    }

    /// The part of an image of `size` that matters; `exact` if it may not be reduced.
    pub(crate) fn wanted(&self, size: [usize; 2], by: Interpolation, exact: bool) -> Wanted {
        let reduction = if exact { 1 } else { reduction(size, self.resized) };
        let window = std::array::from_fn(|side| {
            needed(size[side], self.resized[side], self.window[side].clone(), by, reduction)
        });
        Wanted { window, reduction }
    }

    /// The model's view of an image of `size`, of which `part` is decoded.
    pub(crate) fn resize(&self, part: &Part, size: [usize; 2], by: Interpolation) -> Image {
        resize_part(part, size.map(|side| 0..side), self.resized, self.window.clone(), by)
    }
}

/// The smallest size of the proportions of `from` that covers `to`.
fn covering([h, w]: [usize; 2], [to_h, to_w]: [usize; 2]) -> [usize; 2] {
    if h * to_w <= w * to_h { [to_h, to_h * w / h] } else { [to_w * h / w, to_w] }
}

/// The middle `kept` of `all`.
fn centre(all: usize, kept: usize) -> Range<usize> {
    // Half a pixel goes to the even side, as in Python.
    let half = (all - kept) / 2;
    let start = half + (all - kept) % 2 * (half % 2);
    start..start + kept
}

/// The image in another shape: `[height, width, channels]` with 1 or 3 channels. It may itself have
/// grey, grey and alpha, RGB, or RGBA; alpha is dropped.
///
/// Resized with an antialiased bilinear filter where the size differs; colours become grey by
/// ITU-R 601 weights, grey becomes three equal channels.
///
/// # Panics
/// If either has another number of channels, or no pixels.
pub fn fit(image: &Image, shape: [usize; 3]) -> Image {
    let [height, width, channels] = shape;
    resize(&recoloured(image, channels), height, width, Interpolation::Bilinear)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn covering_keeps_proportions() {
        assert_eq!(covering([300, 451], [256, 256]), [256, 384]);
        assert_eq!(covering([640, 427], [256, 256]), [383, 256]);
        assert_eq!(covering([10, 10], [256, 256]), [256, 256]);
        assert_eq!(covering([30, 20], [8, 16]), [24, 16]);
        assert_eq!(covering([1, 100_000], [4, 4]), [4, 400_000]);
    }

    #[test]
    fn the_middle_is_kept() {
        assert_eq!(centre(256, 224), 16..240);
        assert_eq!(centre(4, 4), 0..4);
        // One pixel too many: behind; three: two before it, one behind it, as torchvision rounds.
        assert_eq!((centre(5, 4), centre(5, 2)), (0..4, 2..4));
    }

    #[test]
    fn the_shape_is_the_models_whatever_the_images() {
        // The last would be 77 million pixels wide before it is cropped.
        for (height, width, channels) in
            [(1, 1, 1), (3, 50, 3), (50, 3, 4), (12, 8, 2), (1, 6_000_000, 1)]
        {
            let pixels = (0..height * width * channels).map(|i| (i * 31 % 251) as u8).collect();
            let image = Image { height, width, channels, pixels };
            for shape in [[12, 8, 3], [9, 9, 1]] {
                let preprocessing = Preprocessing {
                    shape,
                    crop_ratio: 0.875,
                    interpolation: Interpolation::Bicubic,
                    normalization: Normalization {
                        mean: vec![0.5; shape[2]],
                        std: vec![0.25; shape[2]],
                    },
                };
                let mut out = vec![];
                preprocessing.apply(&image, &mut out);
                assert_eq!(out.len(), shape.iter().product::<usize>());
            }
        }
    }

    #[test]
    fn fitting_keeps_what_fits() {
        let image =
            Image { height: 2, width: 3, channels: 1, pixels: vec![10, 20, 30, 40, 50, 60] };
        assert_eq!(fit(&image, [2, 3, 1]), image);
        assert_eq!(fit(&image, [2, 3, 3]).pixels[..6], [10, 10, 10, 20, 20, 20]);
        let flat = Image { pixels: vec![77; 6], ..image };
        assert_eq!(fit(&flat, [5, 4, 3]).pixels, [77; 60]);
    }

    #[test]
    fn alpha_is_dropped() {
        let image = |channels, pixels: &[u8]| Image {
            height: 1,
            width: 2,
            channels,
            pixels: pixels.to_vec(),
        };
        let colour = image(4, &[200, 100, 50, 0, 9, 9, 9, 255]);
        assert_eq!(fit(&colour, [1, 2, 3]).pixels, [200, 100, 50, 9, 9, 9]);
        assert_eq!(fit(&colour, [1, 2, 1]).pixels, [124, 9]);
        let grey = image(2, &[5, 0, 6, 255]);
        assert_eq!(fit(&grey, [1, 2, 1]).pixels, [5, 6]);
        assert_eq!(fit(&grey, [1, 2, 3]).pixels, [5, 5, 5, 6, 6, 6]);
    }

    #[test]
    fn shrinking_averages_instead_of_skipping() {
        // Columns of 0 and 240 in turn: a filter without antialiasing keeps one of the two.
        let pixels = (0..6 * 16).map(|i| if i % 2 == 0 { 0 } else { 240 }).collect();
        let stripes = Image { height: 6, width: 16, channels: 1, pixels };
        let small = fit(&stripes, [3, 4, 1]);
        assert_eq!((small.height, small.width, small.channels), (3, 4, 1));
        assert!(small.pixels.iter().all(|p| (100..=140).contains(p)), "{:?}", small.pixels);
    }
}
