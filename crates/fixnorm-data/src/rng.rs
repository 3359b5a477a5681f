//! Random streams that depend on (seed, purpose, epoch, index) alone, never on threads.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use crate::split::below;

/// What random numbers are for; no two purposes share a stream.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Stream {
    /// Training or validation.
    Split = 1,
    /// Order of an epoch.
    Order = 2,
    /// Changes of one picture.
    Augment = 3,
    /// Pixels of a synthetic picture.
    Synthetic = 4,
}

/// The stream for one purpose. The four numbers are the generator's key, so that streams are
/// independent without any mixing of ours.
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
