//! Which part of an image is kept.
//! Not here: cutting it out of a file while decoding (`decode.rs`), resizing it (`resize.rs`).

use std::ops::Range;

use rand_chacha::ChaCha8Rng;

use crate::Image;
use crate::rng::{below, between};

/// Tries before the crop is the middle.
const TRIES: usize = 10;

/// Rows and columns of a random crop: a share `scale` of the image's area with proportions (width over
/// height) of `ratio`, even in its logarithm.
///
/// Source: torchvision's `RandomResizedCrop.get_params`, number by number.
pub(crate) fn random_resized(
    [height, width]: [usize; 2],
    scale: [f64; 2],
    ratio: [f64; 2],
    random: &mut ChaCha8Rng,
) -> [Range<usize>; 2] {
    let area = (height * width) as f64;
    let window = |top: usize, left: usize, h: usize, w: usize| [top..top + h, left..left + w];
    for _ in 0..TRIES {
        let target = area * between(scale[0], scale[1], random);
        let proportions = between(ratio[0].ln(), ratio[1].ln(), random).exp();
        let w = (target * proportions).sqrt().round_ties_even() as usize;
        let h = (target / proportions).sqrt().round_ties_even() as usize;
        if (1..=width).contains(&w) && (1..=height).contains(&h) {
            let (top, left) = (below(height - h + 1, random), below(width - w + 1, random));
            return window(top, left, h, w);
        }
    }
    let own = width as f64 / height as f64;
    let (h, w) = if own < ratio[0] {
        ((width as f64 / ratio[0]).round_ties_even() as usize, width)
    } else if own > ratio[1] {
        (height, (height as f64 * ratio[1]).round_ties_even() as usize)
    } else {
        (height, width)
    };
    let (h, w) = (h.clamp(1, height), w.clamp(1, width));
    window((height - h) / 2, (width - w) / 2, h, w)
}

/// The window at (`top`, `left`) of the image padded by `padding` with black, mirrored or not.
pub(crate) fn padded(
    image: &Image,
    top: usize,
    left: usize,
    padding: usize,
    mirrored: bool,
) -> Image {
    let Image { height, width, channels, ref pixels } = *image;
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
    Image { pixels: out, ..*image }
}

/// Left and right changed over.
pub(crate) fn mirror(image: &mut Image) {
    fn rows<const C: usize>(pixels: &mut [u8], width: usize) {
        pixels.as_chunks_mut::<C>().0.chunks_exact_mut(width).for_each(<[_]>::reverse);
    }
    match image.channels {
        1 => rows::<1>(&mut image.pixels, image.width),
        3 => rows::<3>(&mut image.pixels, image.width),
        _ => *image = padded(image, 0, 0, 0, true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Stream, stream};

    fn image() -> Image {
        Image { height: 4, width: 5, channels: 3, pixels: (1..=60).collect() }
    }

    /// The slow way: pad, cut, mirror.
    fn reference(
        image: &Image,
        top: usize,
        left: usize,
        padding: usize,
        mirrored: bool,
    ) -> Vec<u8> {
        let (h, w, c) = (image.height, image.width, image.channels);
        let (ph, pw) = (h + 2 * padding, w + 2 * padding);
        let mut padded = vec![0; ph * pw * c];
        for y in 0..h {
            for x in 0..w {
                for k in 0..c {
                    padded[((y + padding) * pw + x + padding) * c + k] =
                        image.pixels[(y * w + x) * c + k];
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
                        let found = padded(&image(), top, left, padding, mirrored);
                        assert_eq!(found.pixels, reference(&image(), top, left, padding, mirrored));
                    }
                }
            }
        }
    }

    #[test]
    fn mirroring_is_mirroring_for_any_number_of_channels() {
        for channels in [1, 2, 3, 4] {
            let pixels = (0..6 * 5 * channels as u8).collect();
            let image = Image { height: 6, width: 5, channels, pixels };
            let mut mirrored = image.clone();
            mirror(&mut mirrored);
            assert_eq!(mirrored.pixels, reference(&image, 0, 0, 0, true));
        }
    }

    #[test]
    fn crops_are_within_the_image_whatever_its_proportions() {
        let mut random = stream(1, Stream::Augment, 0, 0);
        for size in [[1, 1], [1, 900], [900, 1], [3, 40], [375, 500]] {
            for _ in 0..200 {
                let [rows, columns] =
                    random_resized(size, [0.08, 1.0], [3.0 / 4.0, 4.0 / 3.0], &mut random);
                assert!(rows.start < rows.end && rows.end <= size[0], "{rows:?} of {size:?}");
                assert!(columns.start < columns.end && columns.end <= size[1]);
            }
        }
    }

    #[test]
    fn what_never_fits_falls_back_to_the_middle() {
        let mut random = stream(1, Stream::Augment, 0, 0);
        let all = |size, ratio| random_resized(size, [1.0, 1.0], ratio, &mut random.clone());
        assert_eq!(all([10, 100], [0.75, 1.25]), [0..10, 44..56]);
        assert_eq!(all([100, 10], [0.75, 1.25]), [43..56, 0..10]);
        // torchvision: the proportions are the image's own, and every try is a pixel too large or fits.
        assert_eq!(
            random_resized([30, 40], [1.0, 1.0], [4.0 / 3.0; 2], &mut random),
            [0..30, 0..40]
        );
    }

    /// Kolmogorov–Smirnov: 10,000 draws against torchvision's 100,000, from
    /// `benches/peers/augment_fixture.py`.
    #[test]
    fn crops_are_distributed_as_torchvisions() {
        let fixture = include_str!("../../tests/fixtures/crop.json");
        let fixture: serde_json::Value = serde_json::from_str(fixture).unwrap();
        let numbers = |value: &serde_json::Value| -> Vec<usize> {
            value.as_array().unwrap().iter().map(|n| n.as_u64().unwrap() as usize).collect()
        };
        let (draws, theirs) = (10_000, fixture["draws"].as_f64().unwrap());
        // Both distributions are equal with a probability of 0.001 where they are further apart.
        let critical = 1.95 * (1.0 / f64::from(draws) + 1.0 / theirs).sqrt();
        let mut random = stream(11, Stream::Augment, 0, 0);
        for case in fixture["cases"].as_array().unwrap() {
            let size = numbers(&case["size"]);
            let windows: Vec<[Range<usize>; 2]> = (0..draws)
                .map(|_| {
                    let ratio = [3.0 / 4.0, 4.0 / 3.0];
                    random_resized([size[0], size[1]], [0.08, 1.0], ratio, &mut random)
                })
                .collect();
            type Measure = fn(&[Range<usize>; 2]) -> usize;
            let measures: [(&str, Measure); 4] = [
                ("top", |[rows, _]| rows.start),
                ("left", |[_, columns]| columns.start),
                ("height", |[rows, _]| rows.len()),
                ("width", |[_, columns]| columns.len()),
            ];
            for (name, measure) in measures {
                let theirs: Vec<f64> =
                    numbers(&case[name]).iter().map(|&count| count as f64 / theirs).collect();
                let mut counts = vec![0; theirs.len()];
                windows.iter().for_each(|window| counts[measure(window)] += 1);
                let mut sum = 0;
                let mut distance: f64 = 0.0;
                for (count, theirs) in counts.iter().zip(theirs) {
                    sum += count;
                    distance = distance.max((f64::from(sum) / f64::from(draws) - theirs).abs());
                }
                assert!(distance < critical, "{name} of {size:?}: {distance} of {critical}");
            }
        }
    }
}
