//! Softmax cross-entropy with label smoothing: the loss of a batch and the gradient of its logits.
//! Not here: which head the logits come from.
//!
//! # Contract
//!
//! ```text
//! target     t[k] = (1 − s)·[k = label] + s/classes
//! loss       mean over rows of −Σ t[k]·ln softmax(x)[k]
//!            = mean of ln Σ exp z[k] − (1 − s)·z[label] − s/classes·Σ z[k],   z = x − max x
//! gradient   dx[k] = (softmax(x)[k] − t[k])/n
//! ```
//!
//! Exponentials are `f32`, all else is `f64`. A row with a NaN, with +∞ or of nothing but −∞ makes
//! the loss and its own gradient NaN, and no other row's. A logit of −∞ has probability 0; the loss is
//! ∞ where its target is not 0, while the gradient, being a difference of probabilities, stays finite. Rows
//! are split by sizes alone, so a result does not depend on the number of threads.

use rayon::prelude::*;

use crate::activation::exp;
use crate::isa::{Isa, vectorized};
use crate::memory::{Buffer, Split};

/// Partial results of a row, so that its loops become vector instructions.
const LANES: usize = 16;

/// The mean loss over the rows, and its gradient.
///
/// # Shapes
/// `logits` and the gradient are `[n, classes]`, `labels` is `[n]`.
///
/// # Panics
/// If there are no rows or no classes, a length does not fit, `smoothing` is not from 0 to 1, or a
/// label is not below `classes`.
pub fn cross_entropy(
    isa: Isa,
    logits: &[f32],
    labels: &[u32],
    classes: usize,
    smoothing: f64,
) -> (f64, Vec<f32>) {
    let n = labels.len();
    assert!(n > 0 && classes > 0, "a loss of nothing");
    assert_eq!(logits.len(), n * classes, "logits");
    assert!((0.0..=1.0).contains(&smoothing), "smoothing is {smoothing}; it takes 0 to 1");
    if let Some(row) = labels.iter().position(|&label| label as usize >= classes) {
        panic!("label {} of row {row} is not one of {classes} classes", labels[row]);
    }
    let mut dlogits = Buffer::new(logits.len());
    let split = Split::new(n);
    let outputs = dlogits.parts(split.per * classes, n.div_ceil(split.per)).into_par_iter();
    let parts =
        outputs.zip(logits.par_chunks(split.per * classes)).zip(labels.par_chunks(split.per));
    // `row` is `#[inline(always)]`: as a function of its own it would be compiled without the instruction set.
    let losses = parts.map(|((mut dlogits, logits), labels)| {
        vectorized!(isa, {
            let mut loss = 0.0;
            let dlogits = dlogits.next(logits.len());
            let rows = logits.chunks_exact(classes).zip(dlogits.chunks_exact_mut(classes));
            for ((x, dx), &label) in rows.zip(labels) {
                loss += row(x, label as usize, smoothing, n, dx);
            }
            loss
        })
    });
    let losses: Vec<f64> = losses.collect();
    (losses.iter().sum::<f64>() / n as f64, dlogits.into_vec())
}

/// The loss of one row, and its part of the gradient of the mean over `n`.
#[inline(always)]
fn row(x: &[f32], label: usize, smoothing: f64, n: usize, dx: &mut [f32]) -> f64 {
    let max = maximum(x);
    for (dx, &x) in dx.iter_mut().zip(x) {
        let z = x - max;
        // `exp` ends at -87, but what is further away has no part in the sum.
        *dx = if z < -87.0 { 0.0 } else { exp(z) };
    }
    let total = sum(dx, 0.0);
    let max = f64::from(max);
    let mut loss = total.ln() - (1.0 - smoothing) * (f64::from(x[label]) - max);
    let elsewhere = smoothing / x.len() as f64;
    // Without smoothing a logit of -∞ costs nothing, where 0·∞ would be NaN.
    if smoothing > 0.0 {
        loss -= elsewhere * sum(x, max);
    }

    let (inverse, scale) = (1.0 / total, 1.0 / n as f64);
    // Once the label is learned its exponential is close to the total: the difference is computed in `f64`.
    let own = f64::from(dx[label]) * inverse - elsewhere - (1.0 - smoothing);
    for dx in dx.iter_mut() {
        *dx = ((f64::from(*dx) * inverse - elsewhere) * scale) as f32;
    }
    dx[label] = (own * scale) as f32;
    loss
}

/// The maximum, NaN ignored.
#[inline(always)]
fn maximum(x: &[f32]) -> f32 {
    let greater = |a: f32, b: f32| if b > a { b } else { a };
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let mut blocks = x.chunks_exact(LANES);
    for x in &mut blocks {
        for i in 0..LANES {
            lanes[i] = greater(lanes[i], x[i]);
        }
    }
    let rest = blocks.remainder().iter().copied().fold(f32::NEG_INFINITY, greater);
    lanes.into_iter().fold(rest, greater)
}

/// `Σ (x − offset)`.
#[inline(always)]
fn sum(x: &[f32], offset: f64) -> f64 {
    let mut lanes = [0.0; LANES];
    let mut blocks = x.chunks_exact(LANES);
    for x in &mut blocks {
        for i in 0..LANES {
            lanes[i] += f64::from(x[i]) - offset;
        }
    }
    let rest: f64 = blocks.remainder().iter().map(|&x| f64::from(x) - offset).sum();
    lanes.iter().sum::<f64>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::cases;
    use proptest::prelude::*;

    /// The definition, in `f64`, with the target written out.
    fn twin(x: &[f64], labels: &[u32], classes: usize, smoothing: f64) -> f64 {
        let mut loss = 0.0;
        for (x, &label) in x.chunks_exact(classes).zip(labels) {
            let max = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let total: f64 = x.iter().map(|x| (x - max).exp()).sum();
            for (k, x) in x.iter().enumerate() {
                let own = if k == label as usize { 1.0 - smoothing } else { 0.0 };
                loss -= (own + smoothing / classes as f64) * (x - max - total.ln());
            }
        }
        loss / labels.len() as f64
    }

    fn twin_gradient(x: &[f64], labels: &[u32], classes: usize, smoothing: f64) -> Vec<f64> {
        let mut dx = vec![];
        for (x, &label) in x.chunks_exact(classes).zip(labels) {
            let max = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let total: f64 = x.iter().map(|x| (x - max).exp()).sum();
            for (k, x) in x.iter().enumerate() {
                let own = if k == label as usize { 1.0 - smoothing } else { 0.0 };
                let target = own + smoothing / classes as f64;
                dx.push(((x - max).exp() / total - target) / labels.len() as f64);
            }
        }
        dx
    }

    /// Logits up to `range` from zero, and labels.
    fn batch(n: usize, classes: usize, range: f32, seed: usize) -> (Vec<f32>, Vec<u32>) {
        let value = |i: usize| ((i * 7919 + seed * 104_729) % 2003) as f32 / 1001.0 - 1.0;
        let logits = (0..n * classes).map(|i| range * value(i)).collect();
        (logits, (0..n).map(|row| ((row * 31 + seed) % classes) as u32).collect())
    }

    fn exact(values: &[f32]) -> Vec<f64> {
        values.iter().map(|&v| f64::from(v)).collect()
    }

    fn check(n: usize, classes: usize, range: f32, smoothing: f64, seed: usize) {
        let (logits, labels) = batch(n, classes, range, seed);
        let x = exact(&logits);
        let expected = twin(&x, &labels, classes, smoothing);
        let gradient = twin_gradient(&x, &labels, classes, smoothing);
        for isa in Isa::available() {
            let (loss, dlogits) = cross_entropy(isa, &logits, &labels, classes, smoothing);
            let within = (loss - expected).abs() <= 5e-7 * (1.0 + expected.abs());
            assert!(within, "{isa:?} [{n}, {classes}]: {loss}, expected {expected}");
            assert_eq!(dlogits.len(), gradient.len());
            for (i, (&own, expected)) in dlogits.iter().zip(&gradient).enumerate() {
                // Rounding of z, of the exponential and of the result.
                let within = (f64::from(own) - expected).abs() <= 1e-6 / n as f64;
                assert!(within, "{isa:?} [{n}, {classes}] {i}: {own}, expected {expected}");
            }
        }
    }

    proptest! {
        #![proptest_config(cases(96))]

        #[test]
        fn agrees_with_the_definition(
            n in 1..9_usize,
            classes in prop_oneof![
                1..70_usize,
                prop::sample::select(vec![1, 2, 15, 16, 17, 31, 33, 257, 1000]),
            ],
            range in prop::sample::select(vec![0.0_f32, 0.1, 3.0, 40.0, 300.0]),
            smoothing in prop::sample::select(vec![0.0, 0.1, 0.5, 1.0]),
            seed in 0..1000_usize,
        ) {
            check(n, classes, range, smoothing, seed);
        }
    }

    #[test]
    fn edge_shapes_agree_with_the_definition() {
        for n in [1, 2, 63, 64, 65, 129] {
            for classes in [1, 2, 15, 16, 17] {
                for smoothing in [0.0, 0.1] {
                    check(n, classes, 5.0, smoothing, n + classes);
                }
            }
        }
    }

    #[test]
    fn gradients_are_the_differences_of_the_twin() {
        const STEP: f64 = 1e-4;
        for (n, classes, smoothing) in [(1, 5, 0.0), (3, 17, 0.1), (2, 33, 0.3), (4, 1, 0.1)] {
            let (logits, labels) = batch(n, classes, 3.0, 7);
            let mut moved = exact(&logits);
            let differences: Vec<f64> = (0..moved.len())
                .map(|i| {
                    let own = moved[i];
                    let [above, below] = [STEP, -STEP].map(|step| {
                        moved[i] = own + step;
                        twin(&moved, &labels, classes, smoothing)
                    });
                    moved[i] = own;
                    (above - below) / (2.0 * STEP)
                })
                .collect();
            for isa in Isa::available() {
                let (_, dlogits) = cross_entropy(isa, &logits, &labels, classes, smoothing);
                for (own, expected) in dlogits.iter().zip(&differences) {
                    let within = (f64::from(*own) - expected).abs() < 5e-7;
                    assert!(within, "{isa:?} [{n}, {classes}]: {own}, expected {expected}");
                }
            }
        }
    }

    #[test]
    fn known_losses() {
        for isa in Isa::available() {
            let (loss, dlogits) = cross_entropy(isa, &[7.0; 20], &[3, 0], 10, 0.0);
            assert!((loss - 10.0_f64.ln()).abs() < 1e-12);
            assert!((dlogits[3] + 0.45).abs() < 1e-7 && (dlogits[4] - 0.05).abs() < 1e-7);
            // What is learned still has an exact loss and gradient: e⁻²⁰ is lost beside 1 in f32.
            let (loss, dlogits) = cross_entropy(isa, &[20.0, 0.0], &[0], 2, 0.0);
            let small = (-20.0_f64).exp();
            assert!((loss / small - 1.0).abs() < 1e-6, "{loss}");
            assert!((f64::from(dlogits[0]) / -small - 1.0).abs() < 1e-6, "{dlogits:?}");
        }
    }

    #[test]
    fn huge_logits_do_not_overflow() {
        for isa in Isa::available() {
            let (loss, dlogits) = cross_entropy(isa, &[1e30, -1e30, 0.0], &[0], 3, 0.0);
            assert_eq!((loss, &dlogits[..]), (0.0, &[0.0, 0.0, 0.0][..]));
            let (loss, dlogits) = cross_entropy(isa, &[1e30, -1e30, 0.0], &[2], 3, 0.0);
            assert_eq!((loss, &dlogits[..]), (f64::from(1e30_f32), &[1.0, 0.0, -1.0][..]));
            // The difference overflows f32, and is finite in f64.
            let (loss, dlogits) = cross_entropy(isa, &[f32::MAX, f32::MIN], &[1], 2, 0.0);
            assert_eq!((loss, &dlogits[..]), (2.0 * f64::from(f32::MAX), &[1.0, -1.0][..]));
        }
    }

    #[test]
    fn nan_and_infinity_reach_their_row_and_the_loss() {
        const CLASSES: usize = 17;
        for isa in Isa::available() {
            for smoothing in [0.0, 0.1] {
                for odd in [f32::NAN, f32::INFINITY] {
                    for at in [0, 5, 16] {
                        let (mut logits, labels) = batch(3, CLASSES, 3.0, 1);
                        logits[CLASSES + at] = odd;
                        let (loss, dlogits) =
                            cross_entropy(isa, &logits, &labels, CLASSES, smoothing);
                        assert!(loss.is_nan(), "{isa:?} {odd} at {at}: {loss}");
                        for (i, dx) in dlogits.iter().enumerate() {
                            assert_eq!(dx.is_nan(), i / CLASSES == 1, "{isa:?} {odd} at {at}: {i}");
                        }
                    }
                }
            }
            let (loss, dlogits) = cross_entropy(isa, &[f32::NEG_INFINITY; 2], &[0], 2, 0.0);
            assert!(loss.is_nan() && dlogits.iter().all(|dx| dx.is_nan()));
        }
    }

    #[test]
    fn negative_infinity_is_probability_zero() {
        let logits = [f32::NEG_INFINITY, 1.0, 1.0];
        for isa in Isa::available() {
            let (loss, dlogits) = cross_entropy(isa, &logits, &[1], 3, 0.0);
            assert!((loss - 2.0_f64.ln()).abs() < 1e-12);
            assert_eq!(dlogits, [0.0, -0.5, 0.5]);
            let (loss, dlogits) = cross_entropy(isa, &logits, &[0], 3, 0.0);
            assert_eq!((loss, &dlogits[..]), (f64::INFINITY, &[-1.0, 0.5, 0.5][..]));
            let (loss, dlogits) = cross_entropy(isa, &logits, &[1], 3, 0.3);
            assert!(loss == f64::INFINITY && dlogits.iter().all(|dx| dx.is_finite()));
        }
    }

    #[test]
    fn threads_do_not_change_a_bit() {
        let (logits, labels) = batch(201, 37, 5.0, 3);
        let results = [1, 2, 5].map(|threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| cross_entropy(Isa::detected(), &logits, &labels, 37, 0.1))
        });
        assert!(results[0] == results[1] && results[0] == results[2]);
    }

    #[test]
    #[should_panic(expected = "label 10 of row 1 is not one of 10 classes")]
    fn a_label_out_of_range_is_named() {
        cross_entropy(Isa::SCALAR, &[0.0; 20], &[9, 10], 10, 0.0);
    }

    #[test]
    #[should_panic(expected = "smoothing is NaN")]
    fn smoothing_that_is_no_fraction_is_refused() {
        cross_entropy(Isa::SCALAR, &[0.0; 10], &[9], 10, f64::NAN);
    }
}
