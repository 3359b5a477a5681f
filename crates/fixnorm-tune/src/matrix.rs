//! Small symmetric systems by Cholesky's factorization; a few hundred rows at most.

/// The lower triangle L of A = L·Lᵀ.
#[derive(Clone, Debug)]
pub(crate) struct Cholesky {
    n: usize,
    lower: Vec<f64>,
}

impl Cholesky {
    /// Factors the symmetric matrix whose entries `at` gives; none where it is not positive definite.
    pub(crate) fn new(n: usize, at: impl Fn(usize, usize) -> f64) -> Option<Self> {
        let mut lower = vec![0.0; n * n];
        for row in 0..n {
            for column in 0..=row {
                let (a, b) = (row * n, column * n);
                let dot: f64 = (0..column).map(|k| lower[a + k] * lower[b + k]).sum();
                let rest = at(row, column) - dot;
                lower[a + column] = match row == column {
                    true if rest > 0.0 => rest.sqrt(),
                    // A NaN too.
                    true => return None,
                    false => rest / lower[b + column],
                };
            }
        }
        Some(Self { n, lower })
    }

    /// L⁻¹·b.
    pub(crate) fn forward(&self, b: &[f64]) -> Vec<f64> {
        let mut x = b.to_vec();
        for row in 0..self.n {
            let dot: f64 = (0..row).map(|k| self.lower[row * self.n + k] * x[k]).sum();
            x[row] = (x[row] - dot) / self.lower[row * self.n + row];
        }
        x
    }

    /// A⁻¹·b.
    pub(crate) fn solve(&self, b: &[f64]) -> Vec<f64> {
        let mut x = self.forward(b);
        for row in (0..self.n).rev() {
            let dot: f64 = (row + 1..self.n).map(|k| self.lower[k * self.n + row] * x[k]).sum();
            x[row] = (x[row] - dot) / self.lower[row * self.n + row];
        }
        x
    }

    /// ln det A.
    pub(crate) fn log_det(&self) -> f64 {
        2.0 * (0..self.n).map(|i| self.lower[i * self.n + i].ln()).sum::<f64>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn solves_what_it_factored() {
        let a = [[4.0, 2.0, 0.6], [2.0, 5.0, 1.5], [0.6, 1.5, 3.0]];
        let factored = Cholesky::new(3, |i, j| a[i][j]).unwrap();
        let x = factored.solve(&[1.0, -2.0, 0.5]);
        for (row, expected) in a.iter().zip([1.0, -2.0, 0.5]) {
            let found: f64 = row.iter().zip(&x).map(|(a, x)| a * x).sum();
            assert!((found - expected).abs() < 1e-12, "{found}");
        }
        // By the rule of Sarrus.
        let det: f64 = 4.0 * (15.0 - 2.25) - 2.0 * (6.0 - 0.9) + 0.6 * (3.0 - 3.0);
        assert!((factored.log_det() - det.ln()).abs() < 1e-12);
    }

    #[test]
    fn indefinite_and_nan_are_refused() {
        assert!(Cholesky::new(2, |i, j| if i == j { 1.0 } else { 2.0 }).is_none());
        assert!(Cholesky::new(1, |_, _| f64::NAN).is_none());
    }
}
