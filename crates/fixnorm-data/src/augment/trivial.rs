//! TrivialAugment, wide: one operation of any strength (Müller and Hutter, arXiv 2103.10158).
//! Not here: the operations (`op.rs`).
//!
//! Source: strengths as torchvision's `TrivialAugmentWide` has them.

use rand_chacha::ChaCha8Rng;

use super::levels::negated;
use super::op::Op;
use crate::rng::below;

/// Steps from the least to the greatest strength.
const STEPS: usize = 30;

pub(super) fn draw(random: &mut ChaCha8Rng) -> Op {
    let kind = below(14, random);
    let step = below(STEPS + 1, random) as f64;
    let share = step / STEPS as f64;
    let factor = |random: &mut ChaCha8Rng| (1.0 + negated(0.99 * share, random)) as f32;
    match kind {
        0 => Op::Identity,
        1 => Op::ShearX(negated(0.99 * share, random)),
        2 => Op::ShearY(negated(0.99 * share, random)),
        3 => Op::TranslateX(negated((32.0 * share).trunc(), random)),
        4 => Op::TranslateY(negated((32.0 * share).trunc(), random)),
        5 => Op::Rotate(negated(135.0 * share, random)),
        6 => Op::Brightness(factor(random)),
        7 => Op::Color(factor(random)),
        8 => Op::Contrast(factor(random)),
        9 => Op::Sharpness(factor(random)),
        10 => Op::Posterize(8 - (step / (STEPS as f64 / 6.0)).round_ties_even() as u32),
        11 => Op::Solarize(255.0 - 255.0 * share),
        12 => Op::AutoContrast,
        _ => Op::Equalize,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Stream, stream};

    #[test]
    fn every_operation_occurs_at_every_strength() {
        let mut random = stream(3, Stream::Augment, 0, 0);
        let ops: Vec<Op> = (0..20_000).map(|_| draw(&mut random)).collect();
        let mut bits: Vec<u32> = ops
            .iter()
            .filter_map(|op| if let Op::Posterize(bits) = op { Some(*bits) } else { None })
            .collect();
        bits.sort_unstable();
        bits.dedup();
        assert_eq!(bits, [2, 3, 4, 5, 6, 7, 8]);
        for op in [
            Op::Identity,
            Op::Rotate(-135.0),
            Op::TranslateX(32.0),
            Op::Solarize(0.0),
            Op::Equalize,
        ] {
            assert!(ops.contains(&op), "{op:?}");
        }
        let same = ops.iter().filter(|op| **op == Op::Identity).count();
        assert!((1_300..1_560).contains(&same), "{same}");
    }
}
