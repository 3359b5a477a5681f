//! Changes the number of channels: grey, grey with alpha, RGB and RGBA to grey or RGB.
//! Not here: what a decoder returns (`decode.rs`), changes at random (`augment`).

use crate::Image;

/// The image with 1 or 3 channels. Alpha is dropped; colours become grey by ITU-R 601 weights, grey becomes
/// three equal channels.
///
/// # Panics
/// If either has another number of channels.
pub(crate) fn recoloured(image: &Image, channels: usize) -> Image {
    let pixels = image.pixels.chunks_exact(image.channels);
    let pixels: Vec<u8> = match (image.channels, channels) {
        (from, to) if from == to => image.pixels.clone(),
        (2, 1) => pixels.map(|pixel| pixel[0]).collect(),
        (1 | 2, 3) => pixels.flat_map(|pixel| [pixel[0]; 3]).collect(),
        (3 | 4, 1) => pixels.map(luma).collect(),
        (4, 3) => pixels.flat_map(|pixel| [pixel[0], pixel[1], pixel[2]]).collect(),
        (from, to) => {
            panic!("images have 1 to 4 channels and models 1 or 3, not {from} and {to}")
        }
    };
    Image { channels, pixels, ..*image }
}

/// Rounded as PIL's conversion to `L` rounds.
#[inline(always)]
pub(crate) fn luma(rgb: &[u8]) -> u8 {
    let [r, g, b] = [rgb[0], rgb[1], rgb[2]].map(u32::from);
    ((r * 19595 + g * 38470 + b * 7471 + 0x8000) >> 16) as u8
}
