//! One operation of an augmentation policy, with Pillow's arithmetic: the bytes are Pillow's.
//! Not here: which operations a picture gets (`policy.rs`), how strong (`levels.rs`).

use super::{color, geometry};
use crate::{Interpolation, Picture};

/// An operation with its strength, of the kinds that AutoAugment introduced (Cubuk et al., arXiv 1805.09501).
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Op {
    /// Nothing.
    Identity,
    /// Each channel stretched to the whole range.
    AutoContrast,
    /// Each channel's histogram made flat.
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
    /// Applies the operation. Pixels between pixels are weighed as `by` says, and what comes from outside
    /// the picture is of the colour `fill` (its first value, for grey pictures).
    ///
    /// # Panics
    /// If the picture has other than 1 or 3 channels.
    pub fn apply(self, picture: &mut Picture, by: Interpolation, fill: [u8; 3]) {
        assert!(matches!(picture.channels, 1 | 3), "{} channels", picture.channels);
        let (height, width) = (picture.height, picture.width);
        let mut move_by = |matrix| *picture = geometry::affine(picture, matrix, by, fill);
        match self {
            Op::Identity => {}
            Op::AutoContrast => color::auto_contrast(picture),
            Op::Equalize => color::equalize(picture),
            Op::Invert => color::invert(picture),
            Op::Posterize(bits) => color::posterize(picture, bits),
            Op::Solarize(threshold) => color::solarize(picture, threshold),
            Op::SolarizeAdd(add) => color::solarize_add(picture, add),
            Op::Color(factor) => color::saturate(picture, factor),
            Op::Contrast(factor) => color::contrast(picture, factor),
            Op::Brightness(factor) => color::brightness(picture, factor),
            Op::Sharpness(factor) => color::sharpness(picture, factor),
            Op::Hue(turn) => color::hue(picture, turn),
            Op::ShearX(factor) => move_by([1.0, factor, 0.0, 0.0, 1.0, 0.0]),
            Op::ShearY(factor) => move_by([1.0, 0.0, 0.0, factor, 1.0, 0.0]),
            Op::TranslateX(pixels) => move_by([1.0, 0.0, pixels, 0.0, 1.0, 0.0]),
            Op::TranslateY(pixels) => move_by([1.0, 0.0, 0.0, 0.0, 1.0, pixels]),
            Op::Rotate(degrees) => move_by(geometry::rotation(degrees, height, width)),
        }
    }
}
