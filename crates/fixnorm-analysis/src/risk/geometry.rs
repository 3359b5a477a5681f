//! Margins, distances to boundaries, and how far features of a class lie apart along their normals.

use fixnorm_kernels::Isa;
use fixnorm_kernels::gemm::{COLUMNS, PackedB, ROWS, Rows, RowsMut, multiply};
use rayon::prelude::*;

use super::{Features, LinearHead, RiskError};

/// Rows that a thread multiplies at a time: enough for W to be read from memory seldom, few enough for the rows to
/// stay in its cache.
pub(super) const BLOCK: usize = 128;

/// The boundaries between all pairs of classes.
pub(crate) struct Boundaries {
    pub(super) classes: usize,
    pub(crate) dim: usize,
    /// Wᵀ with the mean row taken from every row: no boundary moves, and what is left in `f32` is what
    /// tells classes apart.
    weight: PackedB<f32>,
    bias: Vec<f32>,
    /// ‖w_a − w_b‖ at `a·classes + b`.
    gaps: Vec<f64>,
    isa: Isa,
}

/// Logits of every sample, but for a number that all classes of a sample share.
pub(crate) struct Margins {
    classes: usize,
    logits: Vec<f32>,
}

impl Margins {
    pub(crate) fn row(&self, sample: usize) -> &[f32] {
        &self.logits[sample * self.classes..][..self.classes]
    }
}

impl Boundaries {
    pub(crate) fn new(head: LinearHead<'_>) -> Result<Self, RiskError> {
        let LinearHead { weight, bias, classes } = head;
        if classes < 2 {
            return Err(RiskError::Shape {
                what: "classes (at least)",
                expected: 2,
                found: classes,
            });
        }
        let dim = weight.len() / classes;
        if dim == 0 || weight.len() != classes * dim {
            let expected = classes * dim.max(1);
            return Err(RiskError::Shape { what: "head weight", expected, found: weight.len() });
        }
        if !bias.is_empty() && bias.len() != classes {
            return Err(RiskError::Shape {
                what: "head bias",
                expected: classes,
                found: bias.len(),
            });
        }
        let centred = without_mean_row(weight, classes, dim);
        let gaps = gaps(&centred, classes, dim);
        for (pair, gap) in gaps.iter().enumerate() {
            let (a, b) = (pair / classes, pair % classes);
            if a < b && *gap == 0.0 {
                return Err(RiskError::SameRow { a, b });
            }
        }
        let mean = bias.iter().map(|&b| f64::from(b)).sum::<f64>() / classes as f64;
        let bias = match bias {
            [] => vec![0.0; classes],
            bias => bias.iter().map(|&b| (f64::from(b) - mean) as f32).collect(),
        };
        let element = |p: usize, j: usize| centred[j * dim + p] as f32;
        let weight = PackedB::new(dim, classes, element);
        Ok(Self { classes, dim, weight, bias, gaps, isa: Isa::current() })
    }

    /// ‖w_a − w_b‖.
    pub(super) fn gap(&self, a: usize, b: usize) -> f64 {
        self.gaps[a * self.classes + b]
    }

    /// `rows · Wᵀ` for `m` rows of features in `rows`, which is padded to whole tiles as `out` is: its rows are
    /// [`stride`](Self::stride) apart.
    pub(super) fn project(&self, m: usize, rows: &[f32], out: &mut [f32]) {
        let a = Rows { data: rows, stride: self.dim };
        multiply(self.isa, m, a, &self.weight, RowsMut { data: out, stride: self.stride() });
    }

    /// From one row of a product to the next.
    pub(super) fn stride(&self) -> usize {
        self.classes.next_multiple_of(COLUMNS)
    }

    /// Logits of all samples, mean row and mean bias left out.
    pub(crate) fn margins(&self, features: Features<'_>) -> Result<Margins, RiskError> {
        let Features { values, labels } = features;
        let (n, dim, classes) = (labels.len(), self.dim, self.classes);
        if values.len() != n * dim {
            return Err(RiskError::Shape {
                what: "features",
                expected: n * dim,
                found: values.len(),
            });
        }
        if n == 0 {
            return Err(RiskError::Shape { what: "samples (at least)", expected: 1, found: 0 });
        }
        if let Some(sample) = labels.iter().position(|&label| label as usize >= classes) {
            return Err(RiskError::Label { sample, label: labels[sample], classes });
        }
        let mut logits = vec![0.0; n * classes];
        let blocks = logits.par_chunks_mut(BLOCK * classes).zip(values.par_chunks(BLOCK * dim));
        blocks.for_each(|(logits, values)| {
            let m = values.len() / dim;
            let padded = m.next_multiple_of(ROWS);
            let mut rows = values.to_vec();
            rows.resize(padded * dim, 0.0);
            let mut product = vec![0.0; padded * self.stride()];
            self.project(m, &rows, &mut product);
            let products = product.chunks_exact(self.stride());
            for (out, row) in logits.chunks_exact_mut(classes).zip(products) {
                for ((out, z), b) in out.iter_mut().zip(row).zip(&self.bias) {
                    *out = z + b;
                }
            }
        });
        match logits.iter().position(|z| !z.is_finite()) {
            Some(at) => Err(RiskError::NotFinite { sample: at / classes }),
            None => Ok(Margins { classes, logits }),
        }
    }

    /// Distances of a sample from the boundaries of its class.
    pub(super) fn distances<'a>(
        &'a self,
        logits: &'a [f32],
        label: usize,
    ) -> impl Iterator<Item = f64> + Clone + 'a {
        let own = f64::from(logits[label]);
        let others = logits.iter().enumerate().filter(move |(j, _)| *j != label);
        others.map(move |(j, &z)| (own - f64::from(z)) / self.gap(label, j))
    }

    /// σ of every class.
    pub(super) fn sigmas(&self, margins: &Margins, labels: &[u32]) -> Result<Vec<f64>, RiskError> {
        let mut members = vec![vec![]; self.classes];
        for (sample, &label) in labels.iter().enumerate() {
            members[label as usize].push(sample);
        }
        let variances: Vec<Option<f64>> = members
            .par_iter()
            .enumerate()
            .map(|(class, members)| self.variance(margins, class, members))
            .collect();
        let known = || variances.iter().zip(&members).filter_map(|(v, m)| Some((((*v)?), m.len())));
        let samples: usize = known().map(|(_, n)| n).sum();
        let pooled = known().map(|(v, n)| v * n as f64).sum::<f64>() / samples as f64;
        if pooled.is_nan() || pooled <= 0.0 {
            return Err(RiskError::NoSpread);
        }
        let sigma = |variance: &Option<f64>| variance.filter(|v| *v > 0.0).unwrap_or(pooled).sqrt();
        Ok(variances.iter().map(sigma).collect())
    }

    /// Variance of the distances of a class's samples, averaged over its boundaries.
    fn variance(&self, margins: &Margins, class: usize, members: &[usize]) -> Option<f64> {
        let (&first, n) = (members.first()?, members.len());
        if n < 2 {
            return None;
        }
        let margin = |row: &[f32], j: usize| f64::from(row[class]) - f64::from(row[j]);
        // Sums of differences from the first sample: the mean may be large beside the spread.
        let origin = margins.row(first);
        let mut sums = vec![(0.0, 0.0); self.classes];
        for &sample in &members[1..] {
            let row = margins.row(sample);
            for (j, (sum, squares)) in sums.iter_mut().enumerate() {
                let moved = margin(row, j) - margin(origin, j);
                *sum += moved;
                *squares += moved * moved;
            }
        }
        let n = n as f64;
        let of_boundary = |(j, (sum, squares)): (usize, &(f64, f64))| {
            (squares - sum * sum / n).max(0.0) / (n - 1.0) / self.gap(class, j).powi(2)
        };
        let boundaries = sums.iter().enumerate().filter(|(j, _)| *j != class);
        Some(boundaries.map(of_boundary).sum::<f64>() / (self.classes - 1) as f64)
    }
}

fn without_mean_row(weight: &[f32], classes: usize, dim: usize) -> Vec<f64> {
    let mut mean = vec![0.0; dim];
    for row in weight.chunks_exact(dim) {
        for (mean, &w) in mean.iter_mut().zip(row) {
            *mean += f64::from(w) / classes as f64;
        }
    }
    let centred = |(i, &w): (usize, &f32)| f64::from(w) - mean[i % dim];
    weight.iter().enumerate().map(centred).collect()
}

/// ‖w_a − w_b‖ of all pairs, in `f64` and by the differences themselves: from a Gram matrix the gap of two rows
/// that are almost alike would be the rounding of their norms.
fn gaps(centred: &[f64], classes: usize, dim: usize) -> Vec<f64> {
    let row = |class: usize| &centred[class * dim..][..dim];
    let mut gaps = vec![0.0; classes * classes];
    gaps.par_chunks_exact_mut(classes).enumerate().for_each(|(a, gaps)| {
        for (b, gap) in gaps.iter_mut().enumerate() {
            *gap = distance(row(a), row(b));
        }
    });
    gaps
}

fn distance(a: &[f64], b: &[f64]) -> f64 {
    // Eight independent sums: one chain of additions would wait for its own latency.
    const LANES: usize = 8;
    let mut sums = [0.0; LANES];
    let (a, b) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let rest = a.remainder().iter().zip(b.remainder()).map(|(a, b)| (a - b) * (a - b));
    let rest: f64 = rest.sum();
    for (a, b) in a.zip(b) {
        for lane in 0..LANES {
            sums[lane] += (a[lane] - b[lane]) * (a[lane] - b[lane]);
        }
    }
    (sums.iter().sum::<f64>() + rest).sqrt()
}
