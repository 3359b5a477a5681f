//! The Monte Carlo: noise in feature space, through the head, and which samples change sides.
//!
//! What it costs is the product of the noise with W, since the noise is independent of the sample: one draw of
//! W·ε serves every τ, and the sample's own logits are known. Nothing is factored or approximated.

use fixnorm_kernels::gemm::ROWS;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use rand_distr::{Distribution, StandardNormal};
use rayon::prelude::*;

use super::RiskConfig;
use super::geometry::{BLOCK, Boundaries, Margins};

/// The share of draws in which each sample was misclassified.
pub(super) struct Crossings {
    draws: usize,
    taus: usize,
    /// `[n, taus]`.
    counts: Vec<u32>,
}

impl Crossings {
    /// The mean share of draws on a wrong side, and its standard error given the samples: draws of different
    /// samples are independent, and each sample has a probability of its own.
    pub(super) fn estimate(&self, tau: usize) -> (f64, f64) {
        let (k, n) = (self.draws as f64, self.counts.len() as f64 / self.taus as f64);
        let (mut sum, mut variance) = (0.0, 0.0);
        for counts in self.counts.chunks_exact(self.taus) {
            let share = f64::from(counts[tau]) / k;
            sum += share;
            variance += share * (1.0 - share) / (k - 1.0);
        }
        (sum / n, variance.sqrt() / n)
    }
}

/// Fewer than this a sample would leave its variance unknown.
const FEWEST_DRAWS: usize = 4;

pub(super) fn crossings(
    boundaries: &Boundaries,
    margins: &Margins,
    labels: &[u32],
    sigmas: &[f64],
    config: &RiskConfig,
) -> Crossings {
    let (n, taus) = (labels.len(), config.taus.len());
    let draws = config.draws.div_ceil(n).max(FEWEST_DRAWS);
    let mut counts = vec![0; n * taus];
    if taus == 0 {
        return Crossings { draws, taus: 1, counts: vec![0; n] };
    }
    // A task is whole samples, so that its result is its own, and as many of them as fill a block.
    let samples = (BLOCK / draws).max(1);
    counts.par_chunks_mut(samples * taus).enumerate().for_each(|(task, counts)| {
        Task { boundaries, margins, labels, sigmas, config, draws, first: task * samples }
            .count(counts);
    });
    Crossings { draws, taus, counts }
}

/// The stream of one sample: its key is the two numbers.
fn stream(seed: u64, sample: u64) -> ChaCha8Rng {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..16].copy_from_slice(&sample.to_le_bytes());
    ChaCha8Rng::from_seed(key)
}

/// The samples from `first` on.
struct Task<'a> {
    boundaries: &'a Boundaries,
    margins: &'a Margins,
    labels: &'a [u32],
    sigmas: &'a [f64],
    config: &'a RiskConfig,
    draws: usize,
    first: usize,
}

impl Task<'_> {
    /// Draws for every sample in turn; the products are taken of a block of draws, whosever they are, for W is read
    /// once for each product.
    fn count(&self, counts: &mut [u32]) {
        let taus = self.config.taus.len();
        let (dim, stride) = (self.boundaries.dim, self.boundaries.stride());
        let rows = counts.len() / taus * self.draws;
        let block = BLOCK.min(rows).next_multiple_of(ROWS);
        let (mut noise, mut moved) = (vec![0.0; block * dim], vec![0.0; block * stride]);
        let mut random = stream(self.config.seed, self.first as u64);
        for begin in (0..rows).step_by(BLOCK) {
            let m = BLOCK.min(rows - begin);
            for (row, noise) in (begin..).zip(noise.chunks_exact_mut(dim).take(m)) {
                if row % self.draws == 0 {
                    random = stream(self.config.seed, (self.first + row / self.draws) as u64);
                }
                noise.fill_with(|| StandardNormal.sample(&mut random));
            }
            self.boundaries.project(m, &noise, &mut moved);
            for (row, moved) in (begin..).zip(moved.chunks_exact(stride).take(m)) {
                let index = row / self.draws;
                let sample = self.first + index;
                let (logits, label) = (self.margins.row(sample), self.labels[sample] as usize);
                let counts = &mut counts[index * taus..][..taus];
                for (count, tau) in counts.iter_mut().zip(&self.config.taus) {
                    let size = (tau * self.sigmas[label]) as f32;
                    *count += u32::from(crosses(logits, moved, label, size));
                }
            }
        }
    }
}

/// Whether another class's logit reaches the label's: a tie is on the wrong side, as in an evaluation.
fn crosses(logits: &[f32], moved: &[f32], label: usize, size: f32) -> bool {
    let own = logits[label] + size * moved[label];
    let reach = |logits: &[f32], moved: &[f32]| {
        // No early end: without one it runs on vectors.
        let pairs = logits.iter().zip(moved);
        pairs.fold(false, |any, (z, moved)| any | (z + size * moved >= own))
    };
    reach(&logits[..label], &moved[..label]) | reach(&logits[label + 1..], &moved[label + 1..])
}
