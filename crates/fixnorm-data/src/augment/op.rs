//! One operation of an augmentation policy, with Pillow's arithmetic: the bytes are Pillow's.
//! Not here: which operations an image gets (`policy.rs`), how strong (`levels.rs`).

use super::{color, geometry};
use crate::{Image, Interpolation};

/// An operation with its strength, of the kinds that AutoAugment introduced (Cubuk et al., arXiv 1805.09501).
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Op {
    /// Nothing.
    Identity,
    /// Each channel stretched to the whole range.
    AutoContrast,
    /// Equalizes each channel's histogram.
    Equalize,
    /// 255 minus each value.
    Invert,
    /// As many of each value's upper bits kept.
    Posterize(u32),
    /// Values from this on inverted.
    Solarize(f64),
    /// This added to values below 128.
    SolarizeAdd(u8),
    /// Saturation: 0 is grey, 1 changes nothing.
    Color(f32),
    /// 0 is the mean grey, 1 changes nothing.
    Contrast(f32),
    /// 0 is black, 1 changes nothing.
    Brightness(f32),
    /// 0 is smoothed, 1 changes nothing, 2 is sharpened.
    Sharpness(f32),
    /// Hue turned by this share of the circle, −0.5 to 0.5.
    Hue(f64),
    /// Rows moved by this times their height from the top.
    ShearX(f64),
    /// Columns moved by this times their distance from the left.
    ShearY(f64),
    /// Moved to the left by as many pixels.
    TranslateX(f64),
    /// Moved up by as many pixels.
    TranslateY(f64),
    /// Turned counterclockwise about the middle by as many degrees.
    Rotate(f64),
}

impl Op {
    /// Applies the operation. `by` is the filter that moves pixels; what comes from outside
    /// the image is of the colour `fill` (its first value, for grey images).
    ///
    /// # Panics
    /// If the image has other than 1 or 3 channels.
    pub fn apply(self, image: &mut Image, by: Interpolation, fill: [u8; 3]) {
        assert!(matches!(image.channels, 1 | 3), "{} channels", image.channels);
        let (height, width) = (image.height, image.width);
        let mut move_by = |matrix| *image = geometry::affine(image, matrix, by, fill);
        match self {
            Op::Identity => {}
            Op::AutoContrast => color::auto_contrast(image),
            Op::Equalize => color::equalize(image),
            Op::Invert => color::invert(image),
            Op::Posterize(bits) => color::posterize(image, bits),
            Op::Solarize(threshold) => color::solarize(image, threshold),
            Op::SolarizeAdd(add) => color::solarize_add(image, add),
            Op::Color(factor) => color::saturate(image, factor),
            Op::Contrast(factor) => color::contrast(image, factor),
            Op::Brightness(factor) => color::brightness(image, factor),
            Op::Sharpness(factor) => color::sharpness(image, factor),
            Op::Hue(turn) => color::hue(image, turn),
            Op::ShearX(factor) => move_by([1.0, factor, 0.0, 0.0, 1.0, 0.0]),
            Op::ShearY(factor) => move_by([1.0, 0.0, 0.0, factor, 1.0, 0.0]),
            Op::TranslateX(pixels) => move_by([1.0, 0.0, pixels, 0.0, 1.0, 0.0]),
            Op::TranslateY(pixels) => move_by([1.0, 0.0, 0.0, 0.0, 1.0, pixels]),
            Op::Rotate(degrees) => move_by(geometry::rotation(degrees, height, width)),
        }
    }
}
