//! From a strength of 0 to 10 to the argument of each operation, as in timm.
//! Not here: the policies' own scales (`auto.rs`, `trivial.rs`).
//!
//! Source: what timm's `data/auto_augment.py` computes, which follows TensorFlow's EfficientNet.

use rand_chacha::ChaCha8Rng;

use super::op::Op;
use crate::rng::{normals, uniform};

/// An operation without its strength.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    AutoContrast,
    Equalize,
    Invert,
    Rotate,
    Posterize,
    Solarize,
    SolarizeAdd,
    Color,
    Contrast,
    Brightness,
    Sharpness,
    ShearX,
    ShearY,
    TranslateX,
    TranslateY,
}

/// A strength with noise, between 0 and `most`.
pub(super) fn noisy(level: f64, noise: f64, most: f64, random: &mut ChaCha8Rng) -> f64 {
    let level = if noise == f64::INFINITY {
        level * uniform(random)
    } else if noise > 0.0 {
        level + noise * normals(random)[0]
    } else {
        level
    };
    level.clamp(0.0, most)
}

/// The direction of a strength that is not the distance from no change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scale {
    /// As TensorFlow's EfficientNet has it: 10 keeps most of a posterized or solarized image, and blends
    /// go from 0.1 to 1.9.
    Plain,
    /// Stronger means further from doing nothing.
    Increasing,
    /// The same as `Plain`, but posterizing keeps 4 to 8 bits, as in AutoAugment's paper.
    Original,
}

/// The greatest strength of the scales.
pub(super) const MOST: f64 = 10.0;

impl Kind {
    /// The operation at `level`, on an image of `[height, width]`. Draws its direction, where it has one.
    pub(super) fn at(
        self,
        level: f64,
        scale: Scale,
        [height, width]: [usize; 2],
        random: &mut ChaCha8Rng,
    ) -> Op {
        let share = level / MOST;
        let signed = |most: f64, random: &mut ChaCha8Rng| negated(share * most, random);
        let factor = |random: &mut ChaCha8Rng| match scale {
            Scale::Increasing => (1.0 + signed(0.9, random)).max(0.1) as f32,
            Scale::Plain | Scale::Original => (share * 1.8 + 0.1) as f32,
        };
        match self {
            Kind::AutoContrast => Op::AutoContrast,
            Kind::Equalize => Op::Equalize,
            Kind::Invert => Op::Invert,
            Kind::Rotate => Op::Rotate(signed(30.0, random)),
            Kind::Posterize => {
                let bits = (share * 4.0) as u32;
                Op::Posterize(match scale {
                    Scale::Plain => bits,
                    Scale::Increasing => 4_u32.saturating_sub(bits),
                    Scale::Original => bits + 4,
                })
            }
            Kind::Solarize => {
                let threshold = (share * 256.0).floor().min(256.0);
                Op::Solarize(if scale == Scale::Increasing { 256.0 - threshold } else { threshold })
            }
            Kind::SolarizeAdd => Op::SolarizeAdd((share * 110.0).min(128.0) as u8),
            Kind::Color => Op::Color(factor(random)),
            Kind::Contrast => Op::Contrast(factor(random)),
            Kind::Brightness => Op::Brightness(factor(random)),
            Kind::Sharpness => Op::Sharpness(factor(random)),
            Kind::ShearX => Op::ShearX(signed(0.3, random)),
            Kind::ShearY => Op::ShearY(signed(0.3, random)),
            Kind::TranslateX => Op::TranslateX(signed(0.45, random) * width as f64),
            Kind::TranslateY => Op::TranslateY(signed(0.45, random) * height as f64),
        }
    }
}

/// The value or its negative, either as likely.
pub(super) fn negated(value: f64, random: &mut ChaCha8Rng) -> f64 {
    if uniform(random) < 0.5 { -value } else { value }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Stream, stream};

    fn at(kind: Kind, level: f64, scale: Scale) -> Op {
        kind.at(level, scale, [100, 200], &mut stream(0, Stream::Augment, 0, 0))
    }

    #[test]
    fn strengths_are_timms() {
        // timm 1.0: LEVEL_TO_ARG of Posterize, PosterizeIncreasing, PosterizeOriginal at 9.
        assert_eq!(at(Kind::Posterize, 9.0, Scale::Plain), Op::Posterize(3));
        assert_eq!(at(Kind::Posterize, 9.0, Scale::Increasing), Op::Posterize(1));
        assert_eq!(at(Kind::Posterize, 9.0, Scale::Original), Op::Posterize(7));
        assert_eq!(at(Kind::Posterize, 14.0, Scale::Increasing), Op::Posterize(0));
        assert_eq!(at(Kind::Solarize, 9.0, Scale::Plain), Op::Solarize(230.0));
        assert_eq!(at(Kind::Solarize, 9.0, Scale::Increasing), Op::Solarize(26.0));
        assert_eq!(at(Kind::SolarizeAdd, 9.0, Scale::Plain), Op::SolarizeAdd(99));
        assert_eq!(at(Kind::Color, 4.0, Scale::Plain), Op::Color(0.82));
        for (kind, most) in [(Kind::TranslateX, 90.0), (Kind::TranslateY, 45.0)] {
            let moved = match at(kind, 10.0, Scale::Plain) {
                Op::TranslateX(pixels) | Op::TranslateY(pixels) => pixels,
                other => panic!("{other:?}"),
            };
            assert_eq!(moved.abs(), most);
        }
    }

    #[test]
    fn both_directions_occur() {
        let mut random = stream(1, Stream::Augment, 0, 0);
        let mut ops = vec![];
        for _ in 0..50 {
            ops.push(Kind::Rotate.at(5.0, Scale::Increasing, [9, 9], &mut random));
            ops.push(Kind::Color.at(10.0, Scale::Increasing, [9, 9], &mut random));
        }
        let color = |factor: f64| Op::Color(factor as f32);
        for op in [Op::Rotate(15.0), Op::Rotate(-15.0), color(1.9), color(0.1)] {
            assert!(ops.contains(&op), "{op:?}");
        }
    }
}
