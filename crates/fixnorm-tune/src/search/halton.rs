//! Halton's sequence in bases 2 and 3, shifted at random.
//!
//! # Source
//! J. H. Halton, Numer. Math. 2 (1960); the shift modulo 1 is Cranley and Patterson's (SIAM J. Numer. Anal. 13, 1976).

use serde::{Deserialize, Serialize};

use super::{Ask, Searcher, Told, rng, uniform};
use crate::space::Space;

/// Quasi-random search.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Halton {
    /// The space to search.
    pub space: Space,
    /// Decides the shift.
    pub seed: u64,
}

impl Searcher for Halton {
    fn ask(&self, history: &[Told]) -> Ask {
        let shift = uniform(&mut rng(self.seed, 0));
        // From 1: number 0 is the corner in every base.
        let share =
            |base: usize, shift: f64| (radical_inverse(history.len() + 1, base) + shift).fract();
        Ask::Try(self.space.at_share([share(2, shift[0]), share(3, shift[1])]))
    }
}

/// The digits of `number` in `base`, mirrored at the point.
pub(super) fn radical_inverse(mut number: usize, base: usize) -> f64 {
    let (mut inverse, mut digit) = (0.0, 1.0 / base as f64);
    while number > 0 {
        inverse += digit * (number % base) as f64;
        number /= base;
        digit /= base as f64;
    }
    inverse
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::space::Axis;

    #[test]
    fn digits_are_mirrored() {
        assert_eq!([1, 2, 3, 4].map(|i| radical_inverse(i, 2)), [0.5, 0.25, 0.75, 0.125]);
        assert!((radical_inverse(5, 3) - 7.0 / 9.0).abs() < 1e-15);
    }

    #[test]
    fn first_points_fill_the_space_evenly() {
        let space = Space::new(Axis::new("lr", 0.0, 1.0), Axis::new("alpha", 0.0, 1.0)).unwrap();
        for seed in 0..5 {
            let halton = Halton { space: space.clone(), seed };
            let told = Told { point: [0.0, 0.0], outcome: super::super::Outcome::Pending };
            let mut quarters = [0; 4];
            for count in 0..64 {
                let Ask::Try([x, y]) = halton.ask(&vec![told.clone(); count]) else {
                    panic!("never over");
                };
                quarters[2 * usize::from(x > 0.5) + usize::from(y > 0.5)] += 1;
            }
            assert!(quarters.iter().all(|&count| (12..=20).contains(&count)), "{quarters:?}");
        }
    }
}
