//! Random numbers of dropout and drop path.
//! Not here: initialization (`init.rs`), order and augmentation of images (`fixnorm-data`).

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// Random numbers of one training step. They depend on seed, step and layer alone, so a resumed run draws the same ones,
/// on every backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepRng {
    seed: u64,
    step: u64,
}

impl StepRng {
    /// The random numbers of step `step` of a run with this seed.
    pub fn new(seed: u64, step: usize) -> Self {
        Self { seed, step: step as u64 }
    }

    /// `count` factors of layer `layer`: 0 with probability `rate`, otherwise 1/(1 − rate), which keeps
    /// the mean. None if `rate` is 0.
    pub(crate) fn survival(&self, layer: Layer, count: usize, rate: f64) -> Option<Vec<f32>> {
        if rate <= 0.0 {
            return None;
        }
        let mut key = [0; 32];
        let values = [self.seed, self.step, layer.index()];
        for (bytes, value) in key.chunks_exact_mut(8).zip(values) {
            bytes.copy_from_slice(&value.to_le_bytes());
        }
        // The last eight bytes keep these streams apart from those of initialization, which has zeros there.
        key[24..].copy_from_slice(b"survival");
        let mut rng = ChaCha8Rng::from_seed(key);
        let kept = (1.0 / (1.0 - rate)) as f32;
        let dropped = |rng: &mut ChaCha8Rng| f64::from(rng.next_u32()) / 2f64.powi(32) < rate;
        Some((0..count).map(|_| if dropped(&mut rng) { 0.0 } else { kept }).collect())
    }
}

/// A layer that drops values.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Layer {
    /// The block with this index, from the input.
    Block(usize),
    /// The dropout before the final layer.
    Head,
}

impl Layer {
    fn index(self) -> u64 {
        match self {
            Layer::Block(index) => index as u64,
            Layer::Head => u64::MAX,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_depend_on_seed_step_and_layer() {
        let draw =
            |seed, step, layer| StepRng::new(seed, step).survival(layer, 4096, 0.25).unwrap();
        let first = draw(1, 7, Layer::Block(3));
        assert_eq!(first, draw(1, 7, Layer::Block(3)));
        for other in
            [draw(2, 7, Layer::Block(3)), draw(1, 8, Layer::Block(3)), draw(1, 7, Layer::Head)]
        {
            assert_ne!(first, other);
        }
        assert!(first.iter().all(|&f| f == 0.0 || f == 4.0 / 3.0));
        let mean = first.iter().sum::<f32>() / 4096.0;
        // Four standard deviations of a mean of 4096 draws, √(rate/(1 − rate)/4096) each.
        assert!((mean - 1.0).abs() < 4.0 * (1.0f32 / 3.0 / 4096.0).sqrt(), "{mean}");
        assert_eq!(StepRng::new(1, 7).survival(Layer::Head, 5, 0.0), None);
    }
}
