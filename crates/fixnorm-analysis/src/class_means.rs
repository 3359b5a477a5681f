//! The geometry of class means in feature space: how near a model is to neural collapse (Papyan et al. 2020, PNAS).
//! Not here: logits (`confidence.rs`), distances to boundaries (`risk`).
//!
//! μ_c is the mean of the features of class c, μ̄ the mean of the class means, w_c the head's row and w̄ the mean row.
//! Classes without samples are left out.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::risk::geometry::Boundaries;
use crate::risk::{Features, LinearHead, RiskError};

/// Features around their class means, and the head beside these.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClassMeans {
    /// Mean of ‖h‖ over the samples.
    pub feature_norm: f64,
    /// Mean of ‖h − μ_y‖² over the samples, over the mean of ‖μ_c − μ̄‖² over the classes; 0 at collapse.
    pub within_over_between: f64,
    /// Standard deviation of ‖μ_c − μ̄‖ over its mean; 0 at collapse.
    pub norm_variation: f64,
    /// Mean over pairs of classes of |cos(μ_a − μ̄, μ_b − μ̄) + 1/(C − 1)|; 0 at collapse.
    pub angle_deviation: f64,
    /// Mean over classes of the angle between w_c − w̄ and μ_c − μ̄, in radians; 0 at collapse.
    pub head_angle: f64,
    /// Share of samples for which the nearest class mean is of the class that the head predicts; 1 at collapse.
    pub nearest_mean: f64,
    /// RMS norm of the head's rows, ‖W‖_F/√C.
    pub head_alpha: f64,
}

impl ClassMeans {
    /// Measures features under a head.
    ///
    /// # Errors
    /// Sizes that contradict each other, labels that the head does not have, values that are not finite, fewer than two
    /// classes with samples, two of them with the same mean.
    pub fn of(features: Features<'_>, head: LinearHead<'_>) -> Result<Self, RiskError> {
        let boundaries = Boundaries::new(head)?;
        // Checks sizes, labels and values.
        let logits = boundaries.margins(features)?;
        let (dim, labels) = (boundaries.dim, features.labels);
        let means = means(features, dim, head.classes);
        let present: Vec<usize> =
            (0..head.classes).filter(|&class| means[class].is_some()).collect();
        let own: Vec<&[f64]> = means.iter().flatten().map(Vec::as_slice).collect();
        if own.len() < 2 {
            return Err(RiskError::Shape {
                what: "classes with samples (at least)",
                expected: 2,
                found: own.len(),
            });
        }
        let centred = centred(&own, dim);
        let norms: Vec<f64> = centred.iter().map(|mean| dot(mean, mean).sqrt()).collect();
        if let Some(flat) = norms.iter().position(|norm| *norm == 0.0) {
            return Err(RiskError::SameMean { class: present[flat] });
        }
        let rows: Vec<&[f32]> = head.weight.chunks_exact(dim).collect();
        let rows: Vec<Vec<f64>> =
            rows.iter().map(|row| row.iter().map(|&w| f64::from(w)).collect()).collect();
        let own_rows: Vec<&[f64]> = present.iter().map(|&class| rows[class].as_slice()).collect();
        let own_rows = self::centred(&own_rows, dim);
        let angles = own_rows.iter().zip(&centred).map(|(row, mean)| angle(row, mean));
        let (feature_norm, within) = spread(features, dim, &means);
        let between = mean(norms.iter().map(|norm| norm * norm));
        Ok(Self {
            feature_norm,
            within_over_between: within / between,
            norm_variation: variation(&norms),
            angle_deviation: angle_deviation(&centred, &norms),
            head_angle: mean(angles),
            nearest_mean: {
                let nearest = nearest(features, &own)?;
                let agrees = nearest
                    .iter()
                    .enumerate()
                    .filter(|(sample, nearest)| present[**nearest] == largest(logits.row(*sample)));
                agrees.count() as f64 / labels.len() as f64
            },
            head_alpha: mean(rows.iter().map(|row| dot(row, row))).sqrt(),
        })
    }
}

/// The mean of each class; none without samples.
fn means(features: Features<'_>, dim: usize, classes: usize) -> Vec<Option<Vec<f64>>> {
    let mut sums = vec![(0usize, vec![0.0; dim]); classes];
    for (row, &label) in features.values.chunks_exact(dim).zip(features.labels) {
        let (count, sum) = &mut sums[label as usize];
        *count += 1;
        sum.iter_mut().zip(row).for_each(|(sum, &h)| *sum += f64::from(h));
    }
    let mean = |(count, sum): (usize, Vec<f64>)| {
        (count > 0).then(|| sum.into_iter().map(|sum| sum / count as f64).collect())
    };
    sums.into_iter().map(mean).collect()
}

/// Vectors with their mean taken from each.
fn centred(vectors: &[&[f64]], dim: usize) -> Vec<Vec<f64>> {
    let mut mean = vec![0.0; dim];
    for vector in vectors {
        mean.iter_mut().zip(*vector).for_each(|(mean, x)| *mean += x / vectors.len() as f64);
    }
    let without = |vector: &&[f64]| vector.iter().zip(&mean).map(|(x, mean)| x - mean).collect();
    vectors.iter().map(without).collect()
}

/// Mean of ‖h‖, and of ‖h − μ_y‖².
fn spread(features: Features<'_>, dim: usize, means: &[Option<Vec<f64>>]) -> (f64, f64) {
    let (mut norms, mut squares) = (0.0, 0.0);
    for (row, &label) in features.values.chunks_exact(dim).zip(features.labels) {
        let Some(mean) = &means[label as usize] else { continue };
        let h = || row.iter().map(|&h| f64::from(h));
        norms += h().map(|h| h * h).sum::<f64>().sqrt();
        squares += h().zip(mean).map(|(h, mean)| (h - mean).powi(2)).sum::<f64>();
    }
    let n = features.labels.len() as f64;
    (norms / n, squares / n)
}

fn angle_deviation(centred: &[Vec<f64>], norms: &[f64]) -> f64 {
    let classes = centred.len();
    let target = 1.0 / (classes - 1) as f64;
    let of_class = |a: usize| -> f64 {
        let cos = |b: usize| dot(&centred[a], &centred[b]) / (norms[a] * norms[b]);
        (0..a).map(|b| (cos(b) + target).abs()).sum()
    };
    let sums: Vec<f64> = (0..classes).into_par_iter().map(of_class).collect();
    sums.iter().sum::<f64>() / (classes * (classes - 1) / 2) as f64
}

/// The nearest mean of each sample, by its place: argmax of μ·h − ‖μ‖²/2.
fn nearest(features: Features<'_>, means: &[&[f64]]) -> Result<Vec<usize>, RiskError> {
    let weight: Vec<f32> = means.iter().flat_map(|mean| mean.iter().map(|&x| x as f32)).collect();
    let bias: Vec<f32> = means.iter().map(|mean| (-0.5 * dot(mean, mean)) as f32).collect();
    let labels = vec![0; features.labels.len()];
    let head = LinearHead { weight: &weight, bias: &bias, classes: means.len() };
    let logits = Boundaries::new(head)?.margins(Features { labels: &labels, ..features })?;
    Ok((0..labels.len()).map(|sample| largest(logits.row(sample))).collect())
}

fn largest(logits: &[f32]) -> usize {
    let mut best = 0;
    for (class, z) in logits.iter().enumerate() {
        if *z > logits[best] {
            best = class;
        }
    }
    best
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// The angle between two vectors; a right angle where one is zero.
fn angle(a: &[f64], b: &[f64]) -> f64 {
    let norms = (dot(a, a) * dot(b, b)).sqrt();
    let cos = if norms > 0.0 { dot(a, b) / norms } else { 0.0 };
    cos.clamp(-1.0, 1.0).acos()
}

fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = values.len() as f64;
    values.sum::<f64>() / count
}

fn variation(values: &[f64]) -> f64 {
    let center = mean(values.iter().copied());
    mean(values.iter().map(|value| (value - center).powi(2))).sqrt() / center
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn collapse_is_zero_everywhere() {
        // Three class means at the corners of a triangle around (1, 1), each class at its mean; rows along the means.
        let (s, c) = (60f32.to_radians().sin(), 60f32.to_radians().cos());
        let corners = [[1.0, 0.0], [-c, s], [-c, -s]];
        let values: Vec<f32> = corners.iter().flat_map(|p| [p[0] + 1.0, p[1] + 1.0]).collect();
        let values = [&values[..], &values].concat();
        let weight: Vec<f32> = corners.iter().flatten().map(|x| 2.0 * x).collect();
        let bias: Vec<f32> = corners.iter().map(|p| -2.0 * (p[0] + p[1])).collect();
        let head = LinearHead { weight: &weight, bias: &bias, classes: 3 };
        let features = Features { values: &values, labels: &[0, 1, 2, 0, 1, 2] };
        let found = ClassMeans::of(features, head).unwrap();
        for zero in [
            found.within_over_between,
            found.norm_variation,
            found.angle_deviation,
            found.head_angle,
        ] {
            assert!(zero.abs() < 1e-3, "{found:?}");
        }
        assert_eq!(found.nearest_mean, 1.0);
        assert!((found.head_alpha - 2.0).abs() < 1e-6);
    }

    #[test]
    fn values_by_hand_and_classes_without_samples() {
        // Classes 0 and 2: means (2, 0) and (-2, 0), within ±1 along the second axis.
        let values = [2.0, 1.0, 2.0, -1.0, -2.0, 1.0, -2.0, -1.0];
        let features = Features { values: &values, labels: &[0, 0, 2, 2] };
        // Rows (1, 1), (9, 9), (0, 1): centred over the two classes (0.5, 0) and (-0.5, 0).
        let weight = [1.0, 1.0, 9.0, 9.0, 0.0, 1.0];
        let head = LinearHead { weight: &weight, bias: &[0.0, -100.0, 0.0], classes: 3 };
        let found = ClassMeans::of(features, head).unwrap();
        assert!((found.feature_norm - 5f64.sqrt()).abs() < 1e-9);
        assert!((found.within_over_between - 0.25).abs() < 1e-9, "{found:?}");
        assert_eq!((found.norm_variation, found.angle_deviation), (0.0, 0.0));
        assert!(found.head_angle.abs() < 1e-9 && found.nearest_mean == 1.0, "{found:?}");
        assert!((found.head_alpha - (165.0f64 / 3.0).sqrt()).abs() < 1e-9);
    }

    #[test]
    fn means_that_do_not_differ_are_an_error() {
        let weight = [1.0, 0.0, 0.0, 1.0];
        let head = LinearHead { weight: &weight, bias: &[], classes: 2 };
        let of = |labels: &[u32]| ClassMeans::of(Features { values: &[1.0; 4], labels }, head);
        assert_eq!(of(&[0, 1]), Err(RiskError::SameMean { class: 0 }));
        let error = of(&[1, 1]).unwrap_err().to_string();
        assert_eq!(error, "classes with samples (at least): expected 2, got 1");
    }
}
