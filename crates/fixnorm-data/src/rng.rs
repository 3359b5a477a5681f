//! Random streams that depend on (seed, purpose, epoch, index) alone, never on threads.
//! Not here: what is drawn from them (`split.rs`, `training_subset.rs`, `loader.rs`, `transform.rs`, `augment`, `synthetic.rs`).

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// The purpose of random numbers; no two purposes share a stream.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Stream {
    /// Training or validation.
    Split = 1,
    /// Order of an epoch.
    Order = 2,
    /// Changes of one image.
    Augment = 3,
    /// Pixels of a synthetic image.
    Synthetic = 4,
    /// Mixing of a batch.
    Mix = 5,
    /// A subset of the training images.
    Subset = 6,
    /// Labels that are wrong on purpose.
    WrongLabels = 7,
}

/// The stream for one purpose. The four numbers are the generator's key, so that streams are
/// independent without any mixing of ours: seed, purpose, epoch, index, each 8 bytes, little-endian.
pub(crate) fn stream(seed: u64, purpose: Stream, epoch: u64, index: u64) -> ChaCha8Rng {
    let mut key = [0; 32];
    for (bytes, number) in key.chunks_exact_mut(8).zip([seed, purpose as u64, epoch, index]) {
        bytes.copy_from_slice(&number.to_le_bytes());
    }
    ChaCha8Rng::from_seed(key)
}

/// Fisher–Yates.
pub(crate) fn shuffle<T>(items: &mut [T], random: &mut ChaCha8Rng) {
    for last in (1..items.len()).rev() {
        items.swap(last, below(last + 1, random));
    }
}

/// A number below `bound`, every one as likely.
pub(crate) fn below(bound: usize, random: &mut impl Rng) -> usize {
    // Lemire's method with rejection, so that no value is favoured.
    let bound = bound as u64;
    loop {
        let product = u128::from(random.next_u64()) * u128::from(bound);
        if product as u64 >= bound.wrapping_neg() % bound {
            return (product >> 64) as usize;
        }
    }
}

/// A number from 0 to below 1, of the generator's upper 53 bits.
pub(crate) fn uniform(random: &mut impl Rng) -> f64 {
    (random.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
}

/// A number from `low` to below `high`.
pub(crate) fn between(low: f64, high: f64, random: &mut impl Rng) -> f64 {
    low + (high - low) * uniform(random)
}

/// Two independent numbers of the standard normal distribution (Box and Muller).
pub(crate) fn normals(random: &mut impl Rng) -> [f64; 2] {
    // From above 0: its logarithm is taken.
    let radius = (-2.0 * (1.0 - uniform(random)).ln()).sqrt();
    let (sin, cos) = (std::f64::consts::TAU * uniform(random)).sin_cos();
    [radius * cos, radius * sin]
}

/// A number of the beta distribution with both parameters `alpha`.
pub(crate) fn beta(alpha: f64, random: &mut impl Rng) -> f64 {
    // Of two gamma-distributed numbers the first's share of their sum; by logarithms, since both may be
    // too small for f64 where alpha is.
    let logs = [ln_gamma(alpha, random), ln_gamma(alpha, random)];
    1.0 / (1.0 + (logs[1] - logs[0]).exp())
}

/// The logarithm of a gamma-distributed number (Marsaglia and Tsang 2000; below a shape of 1 from one above).
fn ln_gamma(shape: f64, random: &mut impl Rng) -> f64 {
    if shape < 1.0 {
        let above = ln_gamma(shape + 1.0, random);
        return above + (1.0 - uniform(random)).ln() / shape;
    }
    let d = shape - 1.0 / 3.0;
    let c = 1.0 / (9.0 * d).sqrt();
    loop {
        let [x, _] = normals(random);
        let v = (1.0 + c * x).powi(3);
        let u = 1.0 - uniform(random);
        if v > 0.0 && u.ln() < 0.5 * x * x + d - d * v + d * v.ln() {
            return (d * v).ln();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs must repeat with later versions of the generator's crate, too.
    #[test]
    fn streams_are_chacha8_keyed_by_the_four_numbers() {
        let mut random = stream(5, Stream::Augment, 7, 11);
        assert_eq!(
            [random.next_u64(), random.next_u64()],
            [0xf9ea_2192_ae12_7451, 0xf711_f04e_552d_789f]
        );
    }

    #[test]
    fn each_of_the_four_numbers_gives_another_stream() {
        let first = |seed, purpose, epoch, index| stream(seed, purpose, epoch, index).next_u64();
        let all = [
            first(0, Stream::Order, 0, 0),
            first(1, Stream::Order, 0, 0),
            first(0, Stream::Augment, 0, 0),
            first(0, Stream::Order, 1, 0),
            first(0, Stream::Order, 0, 1),
        ];
        assert_eq!(std::collections::HashSet::from(all).len(), all.len());
    }

    #[test]
    fn shuffling_reaches_every_order_about_as_often() {
        let mut random = stream(2, Stream::Order, 0, 0);
        let mut seen = std::collections::HashMap::new();
        for _ in 0..6000 {
            let mut items = [0, 1, 2];
            shuffle(&mut items, &mut random);
            *seen.entry(items).or_insert(0) += 1;
        }
        assert_eq!(seen.len(), 6);
        assert!(seen.values().all(|count| (850..1150).contains(count)), "{seen:?}");
    }

    #[test]
    fn below_reaches_every_value_and_none_beyond() {
        let mut random = stream(1, Stream::Split, 0, 0);
        let mut seen = [0; 7];
        (0..7000).for_each(|_| seen[below(7, &mut random)] += 1);
        assert!(seen.iter().all(|&count| (850..1150).contains(&count)), "{seen:?}");
        assert_eq!(below(1, &mut random), 0);
    }

    fn moments(draw: impl FnMut() -> f64) -> [f64; 2] {
        let values: Vec<f64> = std::iter::repeat_with(draw).take(40_000).collect();
        let mean = values.iter().sum::<f64>() / 40_000.0;
        [mean, values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / 40_000.0]
    }

    #[test]
    fn distributions_have_their_moments() {
        let mut random = stream(4, Stream::Mix, 0, 0);
        let near = |found: [f64; 2], expected: [f64; 2]| {
            for (found, expected) in found.iter().zip(expected) {
                assert!((found - expected).abs() < 0.02, "{found} {expected}");
            }
        };
        near(moments(|| uniform(&mut random)), [0.5, 1.0 / 12.0]);
        near(moments(|| normals(&mut random)[0]), [0.0, 1.0]);
        near(moments(|| normals(&mut random)[1]), [0.0, 1.0]);
        for alpha in [0.001, 0.1, 0.2, 0.8, 1.0, 3.0, 50.0] {
            // Its variance is 1 / (4 (2 alpha + 1)).
            near(moments(|| beta(alpha, &mut random)), [0.5, 0.25 / (2.0 * alpha + 1.0)]);
        }
    }
}
