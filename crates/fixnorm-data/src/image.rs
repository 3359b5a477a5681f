//! An image in memory, a part of one, and how large one may be.
//! Not here: reading one from a file (`decode.rs`), sets of them (`source.rs`).

use std::ops::Range;

/// An image in memory, `[height, width, channels]` with the channel fastest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// 1 for grey, 3 for RGB.
    pub channels: usize,
    /// `height · width · channels` values.
    pub pixels: Vec<u8>,
}

/// The most pixels that an image may have, so that a file of a few bytes cannot claim all memory. Pillow
/// warns of larger ones.
pub const MAX_PIXELS: usize = 89_478_485;

/// Rows and columns of an image.
pub(crate) type Window = [Range<usize>; 2];

/// What is wanted of an image.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Wanted {
    /// Its rows and columns.
    pub(crate) window: Window,
    /// 1, 2, 4 or 8: how many times its height and width may be reduced.
    pub(crate) reduction: usize,
}

impl Wanted {
    /// All pixels.
    pub(crate) fn all([height, width]: [usize; 2]) -> Self {
        Self { window: [0..height, 0..width], reduction: 1 }
    }
}

/// A part of a larger image.
#[derive(Debug, PartialEq)]
pub(crate) struct Part {
    /// Its pixels.
    pub(crate) image: Image,
    /// Row and column of its first pixel in the whole, which is as much reduced.
    pub(crate) origin: [usize; 2],
    /// 1, 2, 4 or 8: how many times height and width are reduced.
    pub(crate) reduction: usize,
}

impl From<Image> for Part {
    fn from(image: Image) -> Self {
        Self { image, origin: [0, 0], reduction: 1 }
    }
}

/// Checks that an image of this height and width may be decoded.
///
/// # Errors
/// The reason: no pixels, or more than [`MAX_PIXELS`].
pub(crate) fn check_size([height, width]: [usize; 2]) -> Result<(), String> {
    match height.checked_mul(width) {
        Some(0) => Err("it has no pixels".to_owned()),
        Some(1..=MAX_PIXELS) => Ok(()),
        _ => Err(format!("{width} x {height} pixels, which is more than {MAX_PIXELS}")),
    }
}
