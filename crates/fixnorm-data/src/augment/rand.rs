//! RandAugment: a few operations, any as likely, all of one strength (Cubuk et al., arXiv 1909.13719), with
//! timm's options.
//! Not here: its name (`policy.rs`), the operations (`op.rs`).

use rand_chacha::ChaCha8Rng;

use super::levels::{Kind, Scale, noisy};
use super::op::Op;
use crate::rng::{below, uniform};

/// RandAugment's options.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct RandAugment {
    /// Operations of an image.
    pub(super) count: usize,
    /// Strength, to 10.
    pub(super) magnitude: f64,
    /// Standard deviation of the strength; infinite for any strength up to it.
    pub(super) noise: f64,
    /// The most that noise makes of the strength.
    pub(super) most: f64,
    /// Probability of each operation.
    pub(super) probability: f64,
    /// The meaning of a strength.
    pub(super) scale: Scale,
}

const KINDS: [Kind; 15] = [
    Kind::AutoContrast,
    Kind::Equalize,
    Kind::Invert,
    Kind::Rotate,
    Kind::Posterize,
    Kind::Solarize,
    Kind::SolarizeAdd,
    Kind::Color,
    Kind::Contrast,
    Kind::Brightness,
    Kind::Sharpness,
    Kind::ShearX,
    Kind::ShearY,
    Kind::TranslateX,
    Kind::TranslateY,
];

impl RandAugment {
    pub(super) fn draw(&self, size: [usize; 2], random: &mut ChaCha8Rng) -> Vec<Op> {
        let mut ops = vec![];
        for _ in 0..self.count {
            let kind = KINDS[below(KINDS.len(), random)];
            if uniform(random) < self.probability {
                let level = noisy(self.magnitude, self.noise, self.most, random);
                ops.push(kind.at(level, self.scale, size, random));
            }
        }
        ops
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Stream, stream};

    fn all(probability: f64, noise: f64) -> Vec<Op> {
        let options = RandAugment {
            count: 2,
            magnitude: 9.0,
            noise,
            most: 10.0,
            probability,
            scale: Scale::Increasing,
        };
        let mut random = stream(7, Stream::Augment, 0, 0);
        (0..10_000).flat_map(|_| options.draw([100, 100], &mut random)).collect()
    }

    #[test]
    fn operations_are_as_many_as_their_probability_says() {
        assert_eq!(all(1.0, 0.0).len(), 20_000);
        let half = all(0.5, 0.0);
        assert!((9_700..10_300).contains(&half.len()), "{}", half.len());
        let inverted = half.iter().filter(|op| **op == Op::Invert).count();
        assert!((560..780).contains(&inverted), "{inverted}");
    }

    #[test]
    fn noise_spreads_the_strength_within_its_bounds() {
        let turns = |noise| -> Vec<f64> {
            let turn = |op| if let Op::Rotate(degrees) = op { Some(degrees.abs()) } else { None };
            all(1.0, noise).into_iter().filter_map(turn).collect()
        };
        assert!(turns(0.0).iter().all(|&degrees| (degrees - 27.0).abs() < 1e-9));
        let noisy = turns(0.5);
        assert!(noisy.iter().all(|&degrees| degrees <= 30.0));
        let mean = noisy.iter().sum::<f64>() / noisy.len() as f64;
        // Cut at 10, a normal distribution about 9 with deviation 0.5 has its mean at 8.996.
        assert!((mean - 26.99).abs() < 0.2, "{mean}");
        let uniform = turns(f64::INFINITY);
        let mean = uniform.iter().sum::<f64>() / uniform.len() as f64;
        assert!((mean - 13.5).abs() < 0.8, "{mean}");
    }
}
