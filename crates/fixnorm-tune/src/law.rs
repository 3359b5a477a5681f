//! The law of the start: where angle and head norm are expected to be best, from the length of a run and its batch size.
//! Not here: the fit of its coefficients (`benches/tables/fit_law.py`), the search that begins there.
//!
//! log2 angle₀ = a + b·log2(steps) + c·log2(batch), and α₀ = 32/√F for a final layer of F inputs.
//!
//! # Source
//! `benches/tables/fit_law.py` on five tables (ResNet-8 at 93 and 372 steps of 64 images, 92 of 256 and 1,500 of 16, ShuffleNet V2 at 186 of
//! 64) and the equilibrium angles of two common weight decay recipes (0.0073 rad at 60,000 steps of 128, 0.0032 rad at 450,000 of 256):
//! a = −5.12 ± 0.95, b = −0.297 ± 0.044, c = 0.34 ± 0.15. A point left out is missed by 0.70 octaves (root mean square). b rests on the
//! recipes; among the tables alone it is not determined. Under weight decay the linear scaling rule of the learning rate has c = 1/2.
//!
//! α₀: logits are α·‖h‖·cos, and the features' norm ‖h‖ grows as √F. With 64 inputs α between 4 and 8 was best, with 1,024
//! between 0.5 and 2 (`docs/angle.md`).

use crate::space::Point;

/// log2 of the angle in radians at one step and a batch of one.
pub const ANGLE_AT_ONE: f64 = -5.12;

/// Octaves of angle per octave of steps.
pub const ANGLE_PER_STEPS: f64 = -0.297;

/// Octaves of angle per octave of batch size.
pub const ANGLE_PER_BATCH: f64 = 0.341;

/// The product α₀·√F of the head's norm and the root of its number of inputs.
pub const ALPHA_BY_ROOT_FEATURES: f64 = 32.0;

/// Inputs of the final layer where a caller does not know them: those of ResNet-20.
pub const FEATURES: usize = 64;

/// Standard deviation of the best point from the law's, per axis in octaves. Tables left out of the fit are missed by 0.70 and
/// 0.47; they are few, so it is taken wider.
pub const UNCERTAINTY: [f64; 2] = [1.0, 1.0];

/// angle₀ in radians for a run of this many optimizer steps with this many images per step.
///
/// # Panics
/// Never; both count as at least 1.
pub fn angle(steps: f64, batch: f64) -> f64 {
    let [steps, batch] = [steps, batch].map(|count| count.max(1.0).log2());
    (ANGLE_AT_ONE + ANGLE_PER_STEPS * steps + ANGLE_PER_BATCH * batch).exp2()
}

/// The head's norm α₀ for a final layer with this many inputs.
///
/// # Panics
/// Never; inputs count as at least 1.
pub fn alpha(features: usize) -> f64 {
    ALPHA_BY_ROOT_FEATURES / (features.max(1) as f64).sqrt()
}

/// log2 of both: the start of a search.
///
/// # Panics
/// Never.
pub fn start(steps: f64, batch: f64, features: usize) -> Point {
    [angle(steps, batch).log2(), alpha(features).log2()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_the_runs_it_comes_from_within_an_octave() {
        for (steps, batch, angle) in [
            (93.0, 64.0, 0.0191),
            (372.0, 64.0, 0.0188),
            (92.0, 256.0, 0.0625),
            (1500.0, 16.0, 0.0095),
            (186.0, 64.0, 0.0313),
            (6e4, 128.0, 0.0073),
            (4.5e5, 256.0, 0.0032),
        ] {
            let [found, alpha] = start(steps, batch, FEATURES);
            assert!((found - f64::log2(angle)).abs() < 1.0, "{steps}: {}", found.exp2());
            assert_eq!(alpha, 2.0);
        }
        assert!(start(0.0, 0.0, 0).iter().all(|knob| knob.is_finite()));
        assert_eq!(alpha(1024), 1.0);
    }
}
