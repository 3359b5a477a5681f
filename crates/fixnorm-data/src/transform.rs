//! Random changes of training pictures, and the step from pixels to numbers.
//! Not here: which random stream a picture gets (`loader.rs`), resizing (`decode.rs`).

use rand_chacha::ChaCha8Rng;

use crate::Picture;
use crate::rng::below;

/// Random changes of a training picture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Augment {
    /// Black pixels added on each side before a random crop to the original size.
    pub crop_padding: usize,
    /// Mirror every second picture.
    pub flip: bool,
}

impl Augment {
    /// A changed copy. Draws the same numbers whatever the picture, so that one option's choice does
    /// not move another's.
    pub(crate) fn apply(&self, picture: &Picture, random: &mut ChaCha8Rng) -> Picture {
        let choices = 2 * self.crop_padding + 1;
        let (top, left) = (below(choices, random), below(choices, random));
        let mirrored = below(2, random) == 1 && self.flip;
        crop(picture, top, left, self.crop_padding, mirrored)
    }
}

/// The window at (`top`, `left`) of the picture padded by `padding` with black, mirrored or not.
fn crop(picture: &Picture, top: usize, left: usize, padding: usize, mirrored: bool) -> Picture {
    let Picture { height, width, channels, ref pixels } = *picture;
    let mut out = vec![0; pixels.len()];
    for y in 0..height {
        let Some(from_y) = (y + top).checked_sub(padding).filter(|&from| from < height) else {
            continue;
        };
        for x in 0..width {
            let Some(from_x) = (x + left).checked_sub(padding).filter(|&from| from < width) else {
                continue;
            };
            let to_x = if mirrored { width - 1 - x } else { x };
            let (from, to) = ((from_y * width + from_x) * channels, (y * width + to_x) * channels);
            out[to..to + channels].copy_from_slice(&pixels[from..from + channels]);
        }
    }
    Picture { pixels: out, ..*picture }
}

/// How pixels become numbers: `(pixel/255 − mean)/std`, by channel.
#[derive(Clone, Debug, PartialEq)]
pub struct Normalization {
    /// Of each channel, pixels in 0..1.
    pub mean: Vec<f32>,
    /// Of each channel, pixels in 0..1; above 0.
    pub std: Vec<f32>,
}

impl Normalization {
    /// Appends the numbers of a picture's `pixels`, `[h, w, c]` with the channel fastest.
    ///
    /// # Panics
    /// If there are no channels, or a fraction of a pixel.
    pub fn apply(&self, pixels: &[u8], out: &mut Vec<f32>) {
        let scales: Vec<(f32, f32)> =
            self.mean.iter().zip(&self.std).map(|(m, s)| (1.0 / (255.0 * s), m / s)).collect();
        assert_eq!(pixels.len() % scales.len(), 0, "pixels of {} channels", scales.len());
        for pixel in pixels.chunks_exact(scales.len()) {
            out.extend(
                pixel
                    .iter()
                    .zip(&scales)
                    .map(|(&p, (scale, offset))| f32::from(p) * scale - offset),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Stream, stream};

    fn picture() -> Picture {
        Picture { height: 4, width: 5, channels: 3, pixels: (1..=60).collect() }
    }

    /// The slow way: pad, cut, mirror.
    fn reference(
        picture: &Picture,
        top: usize,
        left: usize,
        padding: usize,
        mirrored: bool,
    ) -> Vec<u8> {
        let (h, w, c) = (picture.height, picture.width, picture.channels);
        let (ph, pw) = (h + 2 * padding, w + 2 * padding);
        let mut padded = vec![0; ph * pw * c];
        for y in 0..h {
            for x in 0..w {
                for k in 0..c {
                    padded[((y + padding) * pw + x + padding) * c + k] =
                        picture.pixels[(y * w + x) * c + k];
                }
            }
        }
        let mut out = vec![];
        for y in 0..h {
            for x in 0..w {
                let x = if mirrored { w - 1 - x } else { x };
                out.extend_from_slice(&padded[((y + top) * pw + x + left) * c..][..c]);
            }
        }
        out
    }

    #[test]
    fn crop_and_flip_agree_with_the_slow_way() {
        for padding in 0..4 {
            for top in 0..=2 * padding {
                for left in 0..=2 * padding {
                    for mirrored in [false, true] {
                        let found = crop(&picture(), top, left, padding, mirrored);
                        assert_eq!(
                            found.pixels,
                            reference(&picture(), top, left, padding, mirrored)
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn every_window_and_both_sides_occur() {
        let augment = Augment { crop_padding: 1, flip: true };
        let mut seen = std::collections::HashSet::new();
        for index in 0..400 {
            seen.insert(
                augment.apply(&picture(), &mut stream(3, Stream::Augment, 0, index)).pixels,
            );
        }
        assert_eq!(seen.len(), 3 * 3 * 2);
        let still = Augment::default();
        assert_eq!(still.apply(&picture(), &mut stream(3, Stream::Augment, 0, 0)), picture());
    }

    #[test]
    fn normalization_is_by_channel() {
        let normalization = Normalization { mean: vec![0.5, 0.0], std: vec![0.25, 1.0] };
        let mut out = vec![];
        normalization.apply(&[255, 255, 0, 51], &mut out);
        for (found, expected) in out.iter().zip([2.0, 1.0, -2.0, 0.2]) {
            assert!((found - expected).abs() < 1e-6, "{found} against {expected}");
        }
    }
}
