//! Normalization of pixels.
//! Not here: changes of pixels (`transform.rs`).

use rayon::prelude::*;

use crate::dispatch::vectorized;

/// Normalizes pixels to `(pixel/255 − mean)/std`, by channel.
#[derive(Clone, Debug, PartialEq)]
pub struct Normalization {
    /// Mean of each channel, pixels in 0..1.
    pub mean: Vec<f32>,
    /// Standard deviation of each channel, pixels in 0..1; above 0.
    pub std: Vec<f32>,
}

/// Values at a time: a multiple of 3 channels and of all vector lengths.
const BLOCK: usize = 768;
/// Blocks that a thread takes at a time.
const BLOCKS: usize = 256;

impl Normalization {
    /// Scale and offset of each channel: a pixel, 0 to 255, becomes `pixel · scale − offset`.
    pub fn scales(&self) -> impl Iterator<Item = (f32, f32)> {
        self.mean.iter().zip(&self.std).map(|(m, s)| (1.0 / (255.0 * s), m / s))
    }

    /// Appends the normalized values of `pixels`, `[…, c]` with the channel fastest.
    ///
    /// # Panics
    /// If there are no channels, or a fraction of a pixel.
    pub fn apply(&self, pixels: &[u8], out: &mut Vec<f32>) {
        let channels = self.mean.len();
        assert_eq!(pixels.len() % channels, 0, "pixels of {channels} channels");
        // Blocks of whole pixels with their channels' numbers written out: plain loops that vectorize.
        let block = (BLOCK / channels).max(1) * channels;
        let (scale, offset): (Vec<f32>, Vec<f32>) =
            self.scales().collect::<Vec<_>>().into_iter().cycle().take(block).unzip();
        let start = out.len();
        out.resize(start + pixels.len(), 0.0);
        let share = block * BLOCKS;
        let shares = out[start..].par_chunks_mut(share).zip(pixels.par_chunks(share));
        shares.for_each(|(out, pixels)| {
            for (out, pixels) in out.chunks_mut(block).zip(pixels.chunks(block)) {
                vectorized(|| {
                    let numbers = pixels.iter().zip(&scale).zip(&offset);
                    for (out, ((&pixel, scale), offset)) in out.iter_mut().zip(numbers) {
                        *out = f32::from(pixel) * scale - offset;
                    }
                });
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normalization_is_by_channel() {
        let normalization = Normalization { mean: vec![0.5, 0.0], std: vec![0.25, 1.0] };
        let mut out = vec![];
        normalization.apply(&[255, 255, 0, 51], &mut out);
        for (found, expected) in out.iter().zip([2.0, 1.0, -2.0, 0.2]) {
            assert!((found - expected).abs() < 1e-6, "{found} against {expected}");
        }
    }

    #[test]
    fn blocks_change_nothing() {
        for channels in [1, 2, 3, 5, 100] {
            let mean = (0..channels).map(|c| c as f32 / 100.0).collect();
            let std = (0..channels).map(|c| 0.2 + c as f32 / 50.0).collect();
            let normalization = Normalization { mean, std };
            let pixels: Vec<u8> = (0..7 * 13 * channels).map(|i| (i * 37 % 256) as u8).collect();
            let mut out = vec![];
            normalization.apply(&pixels, &mut out);
            for (i, (&pixel, found)) in pixels.iter().zip(&out).enumerate() {
                let (mean, std) =
                    (normalization.mean[i % channels], normalization.std[i % channels]);
                assert_eq!(*found, f32::from(pixel) * (1.0 / (255.0 * std)) - mean / std);
            }
        }
    }
}
