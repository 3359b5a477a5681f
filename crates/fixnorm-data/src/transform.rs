//! From a sample to a model's input: decode, crop, resize, change at random, normalize.
//! Not here: the changes (`augment`), which random stream an image gets (`loader.rs`).

use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::augment::crop::{mirror, padded, random_resized};
use crate::augment::erase::{Erasing, erase};
use crate::augment::jitter;
use crate::augment::policy::Policy;
use crate::channels::recoloured;
use crate::decode::{decode, decode_window};
use crate::image::{Part, Wanted};
use crate::preprocessing::Placement;
use crate::resize::{Interpolation, reduction, resize_part};
use crate::rng::{below, uniform};
use crate::{DataError, Image, Normalization, Pixels, Sample};

/// The part of an image that is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Crop {
    /// A window of the model's shape of images that have that shape, padded with black.
    #[default]
    Padded,
    /// A random part of random proportions, resized.
    RandomResized,
    /// The middle, after the shorter side was resized: for images that are not trained with.
    Center,
}

/// The steps from a sample to a model's input. The default takes images of the model's shape as they are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Transform {
    /// The part of an image that is kept.
    pub crop: Crop,
    /// For `padded`: black pixels added on each side before a random crop to the original size.
    pub crop_padding: usize,
    /// For `center`: share of the resized image's shorter side that is kept.
    pub crop_ratio: f64,
    /// For `random_resized`: images whose shorter side has more pixels are first resized to this.
    pub max_shorter_side: Option<usize>,
    /// For `random_resized`: least and greatest share of the image's area.
    pub scale: [f64; 2],
    /// For `random_resized`: least and greatest width over height.
    pub ratio: [f64; 2],
    /// The filter for resizing and for moving pixels.
    pub interpolation: Interpolation,
    /// Decode every image at its own scale, though a reduced one would do for what it is resized to.
    pub exact_decode: bool,
    /// Share of the images that are mirrored.
    pub hflip: f64,
    /// Brightness, contrast and saturation: how far a factor may be from 1; hue: how far it may turn.
    pub color_jitter: [f64; 4],
    /// AutoAugment, RandAugment or TrivialAugment, by name.
    pub auto_augment: Policy,
    /// Share of the images of which a rectangle is erased.
    pub random_erasing: f64,
    /// The content of the erased rectangle.
    pub erasing: Erasing,
    /// Parameter of mixup's beta distribution; 0 for none.
    pub mixup: f64,
    /// Parameter of CutMix's beta distribution; 0 for none.
    pub cutmix: f64,
    /// Number of times that an image comes in an epoch, changed differently each time; an epoch stays as long, and has
    /// fewer images.
    pub repeats: usize,
}

impl Default for Transform {
    fn default() -> Self {
        Self {
            crop: Crop::Padded,
            crop_padding: 0,
            crop_ratio: 0.875,
            max_shorter_side: None,
            scale: [0.08, 1.0],
            ratio: [3.0 / 4.0, 4.0 / 3.0],
            interpolation: Interpolation::Bilinear,
            exact_decode: false,
            hflip: 0.0,
            color_jitter: [0.0; 4],
            auto_augment: Policy::default(),
            random_erasing: 0.0,
            erasing: Erasing::default(),
            mixup: 0.0,
            cutmix: 0.0,
            repeats: 1,
        }
    }
}

impl Transform {
    /// The first problem with this transform for images of `shape` (height, width, channels), if there is one.
    pub(crate) fn problem(&self, shape: [usize; 3]) -> Option<String> {
        let share = |name: &str, value: f64| {
            let wrong = !(0.0..=1.0).contains(&value);
            wrong.then(|| format!("{name} must be between 0 and 1, found {value}"))
        };
        let range = |name: &str, [low, high]: [f64; 2], most: f64| {
            let right = low > 0.0 && low <= high && high <= most;
            (!right).then(|| {
                format!("{name} must be two ascending numbers above 0, found {low} and {high}")
            })
        };
        let positive = |name: &str, value: f64| {
            let right = value.is_finite() && value >= 0.0;
            (!right).then(|| format!("{name} must be at least 0, found {value}"))
        };
        let [brightness, contrast, saturation, hue] = self.color_jitter;
        let colours = self.color_jitter != [0.0; 4] || !self.auto_augment.is_none();
        let channels = shape[2];
        share("hflip", self.hflip)
            .or_else(|| share("random_erasing", self.random_erasing))
            .or_else(|| range("scale", self.scale, 1.0))
            .or_else(|| {
                let wrong = self.max_shorter_side == Some(0);
                wrong.then(|| "max_shorter_side must be at least 1, found 0".to_owned())
            })
            .or_else(|| range("ratio", self.ratio, f64::MAX))
            .or_else(|| range("crop_ratio", [self.crop_ratio; 2], 1.0))
            .or_else(|| positive("mixup", self.mixup))
            .or_else(|| positive("cutmix", self.cutmix))
            .or_else(|| positive("color_jitter's brightness", brightness))
            .or_else(|| positive("color_jitter's contrast", contrast))
            .or_else(|| positive("color_jitter's saturation", saturation))
            .or_else(|| positive("color_jitter's hue", hue))
            .or_else(|| (hue > 0.5).then(|| format!("color_jitter's hue must be at most 0.5, found {hue}")))
            .or_else(|| (self.repeats == 0).then(|| "repeats must be at least 1".to_owned()))
            .or_else(|| {
                ((colours || self.crop != Crop::Padded) && !matches!(channels, 1 | 3)).then(|| {
                    format!("images of {channels} channels can only be padded, cropped, mirrored and erased")
                })
            })
    }

    /// Returns true if normalized values are changed, not only pixels.
    pub(crate) fn changes_numbers(&self) -> bool {
        self.random_erasing > 0.0 || self.mixup > 0.0
    }

    /// The steps that are the same in every epoch, for images of `shape`: two transforms with the same text
    /// [`prepare`](Self::prepare) alike.
    pub(crate) fn constant_part(&self, shape: [usize; 3]) -> String {
        let Self { crop, crop_ratio, max_shorter_side, interpolation, exact_decode, .. } = self;
        let channels = shape[2];
        match crop {
            Crop::Padded => format!("{crop:?} {channels}"),
            Crop::RandomResized => {
                format!("{crop:?} {channels} {max_shorter_side:?} {interpolation:?} {exact_decode}")
            }
            Crop::Center => {
                format!("{crop:?} {shape:?} {crop_ratio} {interpolation:?} {exact_decode}")
            }
        }
    }

    /// Returns false if what is decoded of an image depends on its random crop.
    pub(crate) fn can_be_kept(&self) -> bool {
        self.crop != Crop::RandomResized || self.exact_decode || self.max_shorter_side.is_some()
    }

    /// The image of a sample after the steps that are the same in every epoch.
    ///
    /// # Errors
    /// A file that cannot be decoded.
    pub(crate) fn prepare(&self, sample: Sample, shape: [usize; 3]) -> Result<Image, DataError> {
        match self.crop {
            Crop::Padded => whole(sample, shape[2]),
            Crop::RandomResized => self.limited(sample, shape[2]),
            Crop::Center => self.crop_middle(sample, shape),
        }
    }

    /// Appends an image's normalized values, or its bytes where values are not changed: `[height, width, channels]`
    /// of `shape` with the channel fastest.
    ///
    /// # Errors
    /// A file that cannot be decoded, or an image of another shape where it is not resized.
    pub(crate) fn apply(
        &self,
        input: Input,
        shape: [usize; 3],
        normalization: &Normalization,
        random: &mut ChaCha8Rng,
        out: &mut Pixels,
    ) -> Result<(), DataError> {
        let mut image = match (self.crop, input) {
            (Crop::Padded, Input::Sample(sample)) => self.pad(sample, shape, random)?,
            (Crop::Padded, Input::Prepared(image)) => {
                self.pad(Sample::Pixels(image), shape, random)?
            }
            (Crop::RandomResized, input) => self.crop_at_random(input, shape, random)?,
            (Crop::Center, Input::Sample(sample)) => self.crop_middle(sample, shape)?,
            (Crop::Center, Input::Prepared(image)) => image,
        };
        // Padded images were mirrored while they were copied.
        if self.crop != Crop::Padded && self.flips(random) {
            mirror(&mut image);
        }
        self.recolour(&mut image, normalization, random);
        match out {
            Pixels::Bytes(bytes, _) => bytes.extend_from_slice(&image.pixels),
            Pixels::Floats(floats) => {
                let start = floats.len();
                normalization.apply(&image.pixels, floats);
                if self.random_erasing > 0.0 && uniform(random) < self.random_erasing {
                    erase(&mut floats[start..], shape, self.erasing, random);
                }
            }
        }
        Ok(())
    }

    /// The whole image, its shorter side at most [`max_shorter_side`](Self::max_shorter_side).
    fn limited(&self, sample: Sample, channels: usize) -> Result<Image, DataError> {
        let Some(most) = self.max_shorter_side else { return whole(sample, channels) };
        let (mut size, mut to) = ([0; 2], [0; 2]);
        let part = open(sample, channels, |found| {
            (size, to) = (found, limited(found, most));
            let reduction = if self.exact_decode { 1 } else { reduction(size, to) };
            Wanted { reduction, ..Wanted::all(size) }
        })?;
        if to == size {
            return Ok(part.image);
        }
        let [all, window] = [size, to].map(|[height, width]| [0..height, 0..width]);
        Ok(resize_part(&part, all, to, window, self.interpolation))
    }

    fn crop_at_random(
        &self,
        input: Input,
        [height, width, channels]: [usize; 3],
        random: &mut ChaCha8Rng,
    ) -> Result<Image, DataError> {
        let sample = match input {
            Input::Prepared(image) => Sample::Pixels(image),
            Input::Sample(sample) if self.max_shorter_side.is_some() => {
                Sample::Pixels(self.limited(sample, channels)?)
            }
            Input::Sample(sample) => sample,
        };
        let mut window = [0..0, 0..0];
        let part = open(sample, channels, |size| {
            window = random_resized(size, self.scale, self.ratio, random);
            let crop = window.clone().map(|side| side.len());
            let reduction = if self.exact_decode { 1 } else { reduction(crop, [height, width]) };
            Wanted { window: window.clone(), reduction }
        })?;
        let all = [0..height, 0..width];
        Ok(resize_part(&part, window, [height, width], all, self.interpolation))
    }

    fn crop_middle(
        &self,
        sample: Sample,
        [height, width, channels]: [usize; 3],
    ) -> Result<Image, DataError> {
        let mut size = [0; 2];
        let placement = |size| Placement::of(size, [height, width], self.crop_ratio);
        let part = open(sample, channels, |whole| {
            size = whole;
            placement(size).wanted(size, self.interpolation, self.exact_decode)
        })?;
        Ok(placement(size).resize(&part, size, self.interpolation))
    }

    fn flips(&self, random: &mut ChaCha8Rng) -> bool {
        // Of the upper end, so that a half is the generator's uppermost bit.
        uniform(random) >= 1.0 - self.hflip
    }

    /// Draws as many random numbers whatever the image, so that one option does not change another's.
    fn pad(
        &self,
        sample: Sample,
        shape: [usize; 3],
        random: &mut ChaCha8Rng,
    ) -> Result<Image, DataError> {
        let image = whole(sample, shape[2])?;
        let Image { height, width, channels, .. } = image;
        if [height, width, channels] != shape {
            return Err(DataError::Shape { found: [height, width, channels], expected: shape });
        }
        let choices = 2 * self.crop_padding + 1;
        let (top, left) = (below(choices, random), below(choices, random));
        let mirrored = self.flips(random);
        Ok(if self.crop_padding > 0 || mirrored {
            padded(&image, top, left, self.crop_padding, mirrored)
        } else {
            image
        })
    }

    fn recolour(&self, image: &mut Image, normalization: &Normalization, random: &mut ChaCha8Rng) {
        if self.color_jitter == [0.0; 4] && self.auto_augment.is_none() {
            return;
        }
        // What comes from outside of the image is the mean.
        let fill = std::array::from_fn(|channel| {
            let mean = normalization.mean[channel.min(normalization.mean.len() - 1)];
            (mean * 255.0).round_ties_even().clamp(0.0, 255.0) as u8
        });
        let mut ops = jitter(self.color_jitter, random);
        ops.extend(self.auto_augment.draw([image.height, image.width], random));
        for op in ops {
            op.apply(image, self.interpolation, fill);
        }
    }
}

/// An image that a transform changes.
pub(crate) enum Input {
    /// As the source has it.
    Sample(Sample),
    /// After [`Transform::prepare`].
    Prepared(Image),
}

/// The size of an image whose shorter side has at most `most` pixels, with the same proportions.
fn limited([height, width]: [usize; 2], most: usize) -> [usize; 2] {
    let shorter = height.min(width);
    let scaled = |side: usize| (side * most).div_ceil(shorter);
    if shorter <= most { [height, width] } else { [scaled(height), scaled(width)] }
}

/// All of a sample, with as many channels as asked for (1 or 3) where it is a file.
fn whole(sample: Sample, channels: usize) -> Result<Image, DataError> {
    match sample {
        Sample::Pixels(image) => Ok(image),
        Sample::Encoded(encoded) => Ok(with_channels(decode(&encoded)?, channels)),
    }
}

/// The part of a sample that `choose` chooses, with as many channels as asked for (1 or 3).
fn open(
    sample: Sample,
    channels: usize,
    choose: impl FnOnce([usize; 2]) -> Wanted,
) -> Result<Part, DataError> {
    let part = match sample {
        Sample::Encoded(encoded) => decode_window(&encoded, choose)?,
        Sample::Pixels(image) => {
            choose([image.height, image.width]);
            Part::from(image)
        }
    };
    Ok(Part { image: with_channels(part.image, channels), ..part })
}

fn with_channels(image: Image, channels: usize) -> Image {
    if image.channels == channels { image } else { recoloured(&image, channels) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Stream, stream};

    /// A JPEG file with coarse and fine structure.
    fn photograph(width: u32, height: u32) -> Vec<u8> {
        let image = image::RgbImage::from_fn(width, height, |x, y| {
            let (across, down) =
                (f64::from(x) / f64::from(width), f64::from(y) / f64::from(height));
            let noise = f64::from((x * 7919 + y * 104_729) % 9);
            let wave =
                |a: f64, b: f64| (110.0 + 90.0 * (a * across + b * down).sin() + noise) as u8;
            image::Rgb([wave(31.0, 9.0), wave(-14.0, 60.0), wave(80.0, 45.0)])
        });
        let mut bytes = vec![];
        let encoder = image::codecs::jpeg::JpegEncoder::new_with_quality(&mut bytes, 90);
        image.write_with_encoder(encoder).unwrap();
        bytes
    }

    fn applied(transform: &Transform, bytes: &[u8], side: usize, index: u64) -> Vec<u8> {
        let encoded = crate::Encoded { bytes: bytes.to_vec(), name: "x.jpg".into() };
        let normalization = Normalization { mean: vec![0.5; 3], std: vec![0.5; 3] };
        let mut out = Pixels::Bytes(vec![], normalization.clone().into());
        let mut random = stream(1, Stream::Augment, 0, index);
        let shape = [side, side, 3];
        transform
            .apply(
                Input::Sample(Sample::Encoded(encoded)),
                shape,
                &normalization,
                &mut random,
                &mut out,
            )
            .unwrap();
        let Pixels::Bytes(bytes, _) = out else { panic!("numbers") };
        bytes
    }

    #[test]
    fn reduced_decoding_differs_little_and_only_where_there_are_pixels_to_spare() {
        let bytes = photograph(803, 618);
        for (crop, interpolation) in [
            (Crop::RandomResized, Interpolation::Bilinear),
            (Crop::RandomResized, Interpolation::Bicubic),
            (Crop::Center, Interpolation::Bilinear),
            (Crop::Center, Interpolation::Bicubic),
        ] {
            let reduced = Transform { crop, interpolation, ..Transform::default() };
            let exact = Transform { exact_decode: true, ..reduced.clone() };
            let mut changed = 0;
            for index in 0..8 {
                let pair = [&reduced, &exact].map(|how| applied(how, &bytes, 32, index));
                let away = || pair[0].iter().zip(&pair[1]).map(|(a, b)| a.abs_diff(*b));
                let mean = away().map(f64::from).sum::<f64>() / pair[0].len() as f64;
                let worst = away().max().unwrap();
                assert!(
                    mean < 1.5 && worst <= 16,
                    "{crop:?} {interpolation:?}: mean {mean}, worst {worst}"
                );
                changed += usize::from(mean > 0.0);
                let [few, all] = [&reduced, &exact].map(|how| applied(how, &bytes, 310, index));
                assert!(few == all, "{crop:?} {interpolation:?}");
            }
            assert!(changed > 0, "{crop:?} {interpolation:?}");
        }
    }
}
