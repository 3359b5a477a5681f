//! Constraint × step rule: from three inner products to a step `w ← a·w + b·d`.
//! Not here: the direction `d` (`base.rs`), the memory passes (`optim.rs`).
//!
//! | family | constraint | step rule |
//! |---|---|---|
//! | FixNorm | fixed | raw |
//! | weight decay | free | raw, with decay |
//! | Hyperball ([2606.16899](https://arxiv.org/abs/2606.16899)) | fixed, radius `init` | normalized |
//! | LAMB ([1904.00962](https://arxiv.org/abs/1904.00962)) | free | trust ratio, with decay, around Adam |

use fixnorm_kernels::update::{Coefficients, Moments};
use serde::{Deserialize, Serialize};

/// What holds a weight's norm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Constraint {
    /// Nothing.
    Free,
    /// ‖w‖ = ρ after every step.
    Fixed,
    /// ‖w‖ ≤ ρ after every step.
    Capped,
}

/// The norm ρ that a scale-invariant weight is held at, set once before the first step.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Radius {
    /// 1.
    Unit,
    /// The norm at setup: of the initialization, or of the pretrained weight.
    Init,
    /// √c_out for a whole tensor, hence 1 for each of its output channels on average; 1 under
    /// [`Scope::OutputChannel`].
    SqrtCOut,
    /// This number.
    Value(f64),
}

impl Radius {
    /// The norm of one group of a weight with `c_out` output channels, whose norm is `norm` at setup.
    pub fn of_group(self, scope: Scope, c_out: usize, norm: f64) -> f64 {
        match (self, scope) {
            (Radius::Unit, _) | (Radius::SqrtCOut, Scope::OutputChannel) => 1.0,
            (Radius::SqrtCOut, Scope::Tensor) => (c_out as f64).sqrt(),
            (Radius::Init, _) => norm,
            (Radius::Value(radius), _) => radius,
        }
    }
}

/// What one norm is taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// The whole tensor.
    Tensor,
    /// Each output channel by itself.
    OutputChannel,
}

/// How the direction becomes a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepRule {
    /// −lr·d.
    Raw,
    /// −lr·ρ·d/‖d‖: every step turns the weight by about lr radians.
    Normalized,
    /// −lr·‖w‖·u/‖u‖ with u = d + λ·w, where λ is the decoupled decay: LAMB's step. Taken by all weights, of two
    /// dimensions or more.
    TrustRatio,
}

/// The scalars of one step, the same for all groups of a weight.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    /// Learning rate.
    pub(crate) lr: f64,
    /// Whether the direction holds the learning rate already, as TensorFlow's RMSProp does.
    pub(crate) lr_in_direction: bool,
    /// Decoupled decay λ.
    pub(crate) decay: f64,
    pub(crate) rule: StepRule,
    pub(crate) constraint: Constraint,
}

impl Step {
    /// The step of a group whose norm is held at `radius`.
    pub(crate) fn coefficients(&self, moments: Moments, radius: f64) -> Coefficients {
        let Moments { ww, wd, dd } = moments;
        if dd == 0.0 && self.decay == 0.0 {
            // Nothing to do, and rescaling by 1 ± rounding would be something.
            return Coefficients { a: 1.0, b: 0.0 };
        }
        let trust = match self.rule {
            StepRule::Raw | StepRule::Normalized => 1.0,
            StepRule::TrustRatio => {
                let square = dd + 2.0 * self.decay * wd + self.decay * self.decay * ww;
                match ww == 0.0 || square <= 0.0 {
                    true => 1.0,
                    false => (ww / square).sqrt(),
                }
            }
        };
        let a = 1.0 - self.lr * trust * self.decay;
        let b = match self.rule {
            StepRule::Raw | StepRule::TrustRatio if self.lr_in_direction => -trust,
            StepRule::Raw | StepRule::TrustRatio => -self.lr * trust,
            StepRule::Normalized if dd == 0.0 => 0.0,
            StepRule::Normalized => -self.lr * radius / dd.sqrt(),
        };
        // Rounding can take a sum that is zero in exact arithmetic below it.
        let square = a * a * ww + 2.0 * a * b * wd + b * b * dd;
        let norm = if square < 0.0 { 0.0 } else { square.sqrt() };
        let scale = match self.constraint {
            Constraint::Fixed if norm != 0.0 => radius / norm,
            Constraint::Capped if norm > radius => radius / norm,
            _ => 1.0,
        };
        Coefficients { a: a * scale, b: b * scale }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOMENTS: Moments = Moments { ww: 4.0, wd: 0.5, dd: 9.0 };

    fn step(rule: StepRule, constraint: Constraint) -> Step {
        Step { lr: 0.1, lr_in_direction: false, decay: 0.0, rule, constraint }
    }

    fn norm_after(moments: Moments, Coefficients { a, b }: Coefficients) -> f64 {
        (a * a * moments.ww + 2.0 * a * b * moments.wd + b * b * moments.dd).sqrt()
    }

    #[test]
    fn fixed_lands_on_the_sphere_and_capped_inside_it() {
        for rule in [StepRule::Raw, StepRule::Normalized, StepRule::TrustRatio] {
            let fixed = step(rule, Constraint::Fixed).coefficients(MOMENTS, 3.0);
            assert!((norm_after(MOMENTS, fixed) - 3.0).abs() < 1e-12);
            let inside = step(rule, Constraint::Capped).coefficients(MOMENTS, 3.0);
            assert_eq!(inside.a, 1.0);
            let capped = step(rule, Constraint::Capped).coefficients(MOMENTS, 1.0);
            assert!((norm_after(MOMENTS, capped) - 1.0).abs() < 1e-12);
        }
    }

    #[test]
    fn normalized_step_has_the_length_lr_times_radius() {
        let Coefficients { a, b } =
            step(StepRule::Normalized, Constraint::Free).coefficients(MOMENTS, 2.0);
        assert_eq!(a, 1.0);
        assert!((b * MOMENTS.dd.sqrt() + 0.2).abs() < 1e-12);
    }

    #[test]
    fn a_trusted_step_has_the_length_lr_times_the_weights_norm() {
        for decay in [0.0, 0.3] {
            let step = Step { decay, ..step(StepRule::TrustRatio, Constraint::Free) };
            let Coefficients { a, b } = step.coefficients(MOMENTS, f64::NAN);
            // The difference to the weight: (a − 1)·w + b·d.
            let Moments { ww, wd, dd } = MOMENTS;
            let square = (a - 1.0).powi(2) * ww + 2.0 * (a - 1.0) * b * wd + b * b * dd;
            assert!((square.sqrt() - 0.1 * ww.sqrt()).abs() < 1e-12);
            assert!(((a - 1.0) - decay * b).abs() < 1e-12, "along d + λ·w");
        }
        let still = Moments { wd: 0.0, dd: 0.0, ..MOMENTS };
        let decayed = Step { decay: 0.3, ..step(StepRule::TrustRatio, Constraint::Free) };
        assert!((decayed.coefficients(still, 1.0).a - 0.9).abs() < 1e-12);
        let zero = Moments { ww: 0.0, wd: 0.0, ..MOMENTS };
        assert_eq!(decayed.coefficients(zero, 1.0).b, -0.1);
    }

    #[test]
    fn zero_direction_moves_nothing() {
        let still = Moments { wd: 0.0, dd: 0.0, ..MOMENTS };
        for rule in [StepRule::Raw, StepRule::Normalized, StepRule::TrustRatio] {
            let found = step(rule, Constraint::Fixed).coefficients(still, 3.0);
            assert_eq!(found, Coefficients { a: 1.0, b: 0.0 });
        }
    }

    #[test]
    fn nan_is_passed_on() {
        let broken = Moments { dd: f64::NAN, ..MOMENTS };
        let found = step(StepRule::Raw, Constraint::Fixed).coefficients(broken, 3.0);
        assert!(found.a.is_nan() && found.b.is_nan());
    }
}
