//! AutoAugment: one of 25 pairs of operations that a search has found (Cubuk et al., arXiv 1805.09501).
//! Not here: the operations (`op.rs`).

use rand_chacha::ChaCha8Rng;

use super::levels::{Kind::*, MOST, Scale, negated, noisy};
use super::op::Op;
use crate::rng::{below, uniform};

/// The pairs of operations and the meaning of their strengths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Policy {
    /// The paper's for ImageNet, strengths as torchvision has them.
    ImageNet,
    /// The paper's for ImageNet, strengths as timm has them.
    Original,
    /// TensorFlow's for EfficientNet, as in timm.
    V0,
}

/// Operation, probability, strength.
type Step = (super::levels::Kind, f64, u8);

pub(super) fn draw(
    policy: Policy,
    noise: f64,
    size: [usize; 2],
    random: &mut ChaCha8Rng,
) -> Vec<Op> {
    let pairs = match policy {
        Policy::ImageNet | Policy::Original => &IMAGENET,
        Policy::V0 => &V0,
    };
    let mut ops = vec![];
    for &(kind, probability, level) in &pairs[below(pairs.len(), random)] {
        if uniform(random) < probability {
            ops.push(match policy {
                Policy::ImageNet => torchvision(kind, level, random),
                Policy::Original => kind.at(
                    noisy(f64::from(level), noise, MOST, random),
                    Scale::Original,
                    size,
                    random,
                ),
                Policy::V0 => kind.at(
                    noisy(f64::from(level), noise, MOST, random),
                    Scale::Plain,
                    size,
                    random,
                ),
            });
        }
    }
    ops
}

/// Strengths 0 to 9 as torchvision's `AutoAugment` spreads them.
fn torchvision(kind: super::levels::Kind, level: u8, random: &mut ChaCha8Rng) -> Op {
    let share = f64::from(level) / 9.0;
    let factor = |random: &mut ChaCha8Rng| (1.0 + negated(0.9 * share, random)) as f32;
    match kind {
        ShearX => Op::ShearX(negated(0.3 * share, random)),
        Rotate => Op::Rotate(negated(30.0 * share, random)),
        Color => Op::Color(factor(random)),
        Contrast => Op::Contrast(factor(random)),
        Sharpness => Op::Sharpness(factor(random)),
        Posterize => Op::Posterize(8 - (f64::from(level) / (9.0 / 4.0)).round_ties_even() as u32),
        Solarize => Op::Solarize(255.0 - 255.0 * share),
        AutoContrast => Op::AutoContrast,
        Equalize => Op::Equalize,
        Invert => Op::Invert,
        other => unreachable!("{other:?} is not in the table"),
    }
}

/// Table 9 of the paper.
const IMAGENET: [[Step; 2]; 25] = [
    [(Posterize, 0.4, 8), (Rotate, 0.6, 9)],
    [(Solarize, 0.6, 5), (AutoContrast, 0.6, 5)],
    [(Equalize, 0.8, 8), (Equalize, 0.6, 3)],
    [(Posterize, 0.6, 7), (Posterize, 0.6, 6)],
    [(Equalize, 0.4, 7), (Solarize, 0.2, 4)],
    [(Equalize, 0.4, 4), (Rotate, 0.8, 8)],
    [(Solarize, 0.6, 3), (Equalize, 0.6, 7)],
    [(Posterize, 0.8, 5), (Equalize, 1.0, 2)],
    [(Rotate, 0.2, 3), (Solarize, 0.6, 8)],
    [(Equalize, 0.6, 8), (Posterize, 0.4, 6)],
    [(Rotate, 0.8, 8), (Color, 0.4, 0)],
    [(Rotate, 0.4, 9), (Equalize, 0.6, 2)],
    [(Equalize, 0.0, 7), (Equalize, 0.8, 8)],
    [(Invert, 0.6, 4), (Equalize, 1.0, 8)],
    [(Color, 0.6, 4), (Contrast, 1.0, 8)],
    [(Rotate, 0.8, 8), (Color, 1.0, 2)],
    [(Color, 0.8, 8), (Solarize, 0.8, 7)],
    [(Sharpness, 0.4, 7), (Invert, 0.6, 8)],
    [(ShearX, 0.6, 5), (Equalize, 1.0, 9)],
    [(Color, 0.4, 0), (Equalize, 0.6, 3)],
    [(Equalize, 0.4, 7), (Solarize, 0.2, 4)],
    [(Solarize, 0.6, 5), (AutoContrast, 0.6, 5)],
    [(Invert, 0.6, 4), (Equalize, 1.0, 8)],
    [(Color, 0.6, 4), (Contrast, 1.0, 8)],
    [(Equalize, 0.8, 8), (Equalize, 0.6, 3)],
];

/// The policy of TensorFlow's EfficientNet.
const V0: [[Step; 2]; 25] = [
    [(Equalize, 0.8, 1), (ShearY, 0.8, 4)],
    [(Color, 0.4, 9), (Equalize, 0.6, 3)],
    [(Color, 0.4, 1), (Rotate, 0.6, 8)],
    [(Solarize, 0.8, 3), (Equalize, 0.4, 7)],
    [(Solarize, 0.4, 2), (Solarize, 0.6, 2)],
    [(Color, 0.2, 0), (Equalize, 0.8, 8)],
    [(Equalize, 0.4, 8), (SolarizeAdd, 0.8, 3)],
    [(ShearX, 0.2, 9), (Rotate, 0.6, 8)],
    [(Color, 0.6, 1), (Equalize, 1.0, 2)],
    [(Invert, 0.4, 9), (Rotate, 0.6, 0)],
    [(Equalize, 1.0, 9), (ShearY, 0.6, 3)],
    [(Color, 0.4, 7), (Equalize, 0.6, 0)],
    [(Posterize, 0.4, 6), (AutoContrast, 0.4, 7)],
    [(Solarize, 0.6, 8), (Color, 0.6, 9)],
    [(Solarize, 0.2, 4), (Rotate, 0.8, 9)],
    [(Rotate, 1.0, 7), (TranslateY, 0.8, 9)],
    [(ShearX, 0.0, 0), (Solarize, 0.8, 4)],
    [(ShearY, 0.8, 0), (Color, 0.6, 4)],
    [(Color, 1.0, 0), (Rotate, 0.6, 2)],
    [(Equalize, 0.8, 4), (Equalize, 0.0, 8)],
    [(Equalize, 1.0, 4), (AutoContrast, 0.6, 2)],
    [(ShearY, 0.4, 7), (SolarizeAdd, 0.6, 7)],
    [(Posterize, 0.8, 2), (Solarize, 0.6, 10)],
    [(Solarize, 0.6, 8), (Equalize, 0.6, 1)],
    [(Color, 0.8, 6), (Rotate, 0.4, 5)],
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Stream, stream};

    /// Torchvision 0.29's `_augmentation_space(10, …)` at some strengths.
    #[test]
    fn strengths_are_torchvisions() {
        let at = |kind, level| torchvision(kind, level, &mut stream(0, Stream::Augment, 0, 0));
        let bits: Vec<Op> = (5..9).map(|level| at(Posterize, level)).collect();
        assert_eq!(bits, [6, 5, 5, 4].map(Op::Posterize));
        let Op::Solarize(threshold) = at(Solarize, 4) else { panic!() };
        assert!((threshold - 141.666_67).abs() < 1e-4);
        let Op::Rotate(degrees) = at(Rotate, 9) else { panic!() };
        assert_eq!(degrees.abs(), 30.0);
    }

    #[test]
    fn every_pair_can_be_drawn_and_has_its_probabilities() {
        let mut random = stream(7, Stream::Augment, 0, 0);
        for (policy, pairs) in
            [(Policy::ImageNet, IMAGENET), (Policy::V0, V0), (Policy::Original, IMAGENET)]
        {
            let expected = pairs.iter().flatten().map(|step| step.1).sum::<f64>() / 25.0;
            let drawn =
                (0..20_000).map(|_| draw(policy, 0.5, [9, 9], &mut random).len()).sum::<usize>();
            assert!((drawn as f64 / 20_000.0 - expected).abs() < 0.02, "{drawn} {expected}");
        }
    }
}
