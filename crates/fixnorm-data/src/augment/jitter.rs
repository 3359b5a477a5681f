//! Colour jitter: brightness, contrast, saturation and hue, each a little and in any order.
//! Not here: the operations (`op.rs`).
//!
//! Source: torchvision's `ColorJitter`.

use rand_chacha::ChaCha8Rng;

use super::op::Op;
use crate::rng::{between, shuffle};

/// Operations for a jitter of `[brightness, contrast, saturation, hue]`. The first three are how far a factor
/// may be from 1 (not below 0), the last how far the hue may turn, as a share of the circle.
pub(crate) fn jitter(strengths: [f64; 4], random: &mut ChaCha8Rng) -> Vec<Op> {
    let mut order = [0, 1, 2, 3];
    shuffle(&mut order, random);
    let [brightness, contrast, saturation, hue] = strengths;
    let ops = order.into_iter().filter(|&which| strengths[which] > 0.0).map(|which| {
        let factor = |strength: f64, random: &mut ChaCha8Rng| {
            between((1.0 - strength).max(0.0), 1.0 + strength, random) as f32
        };
        match which {
            0 => Op::Brightness(factor(brightness, random)),
            1 => Op::Contrast(factor(contrast, random)),
            2 => Op::Color(factor(saturation, random)),
            _ => Op::Hue(between(-hue, hue, random)),
        }
    });
    ops.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Stream, stream};

    #[test]
    fn factors_are_within_their_strengths_and_orders_differ() {
        let mut random = stream(2, Stream::Augment, 0, 0);
        let mut first = std::collections::HashSet::new();
        let (mut least, mut most) = (f32::MAX, f32::MIN);
        for _ in 0..1000 {
            let ops = jitter([0.4, 1.5, 0.2, 0.1], &mut random);
            assert_eq!(ops.len(), 4);
            first.insert(std::mem::discriminant(&ops[0]));
            for op in ops {
                match op {
                    Op::Brightness(factor) => {
                        (least, most) = (least.min(factor), most.max(factor));
                    }
                    Op::Contrast(factor) => assert!((0.0..=2.5).contains(&factor)),
                    Op::Color(factor) => assert!((0.8..=1.2).contains(&factor)),
                    Op::Hue(turn) => assert!(turn.abs() <= 0.1),
                    other => panic!("{other:?}"),
                }
            }
        }
        assert_eq!(first.len(), 4);
        assert!((0.6..0.62).contains(&least) && (1.38..=1.4).contains(&most), "{least} {most}");
        assert_eq!(jitter([0.0; 4], &mut random), []);
    }
}
