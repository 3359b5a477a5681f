//! The plan of one step of one parameter: every scalar, computed once. Executors (`host.rs`, `gpu/`, `composed.rs`) carry
//! it out; the update rule is written here and, as it runs on the device, once more in `gpu/kernels.rs`.
//!
//! Every step is `w ← a·w + b·d`. The factors follow from three inner products, which also give the norm of the result,
//! so a constraint needs no pass over memory of its own.

use fixnorm_kernels::update::{BaseStep, Coefficients, Moments};

use crate::rule::{Constraint, MAX_ANGLE, StepRule};

/// The scalars of one step, the same for all groups of a parameter.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StepPlan {
    /// Coefficients of the base update.
    pub(crate) base: BaseStep,
    /// λ of decay that is added to the gradient.
    pub(crate) l2: f64,
    /// Share of the weight that decoupled decay removes, before a trust ratio: lr·λ.
    pub(crate) shrink: f64,
    /// λ of decoupled decay, for the trust ratio.
    pub(crate) decay: f64,
    /// The step's length in the unit of the rule: lr; tan(lr) for an angle; lr·√n for an RMS change.
    pub(crate) length: f64,
    pub(crate) rule: StepRule,
    pub(crate) constraint: Constraint,
}

/// The squared norm below which a direction is nothing that a rule may lengthen: what is left of the momentum of a group whose
/// gradient has been zero for hundreds of steps, as that of a channel behind a ReLU that is never positive. Lengthening it would
/// overflow `f32` in the end.
const STILL: f64 = 1e-36;

impl StepPlan {
    /// The plan at learning rate `lr` for groups of `len` elements.
    pub(crate) fn new(
        base: BaseStep,
        lr: f64,
        (l2, decay): (f64, f64),
        rule: StepRule,
        constraint: Constraint,
        len: usize,
    ) -> Self {
        let length = match rule {
            StepRule::Raw | StepRule::TrustRatio => lr,
            StepRule::Angular => lr.min(MAX_ANGLE).tan(),
            StepRule::RmsNormalized => lr * (len as f64).sqrt(),
        };
        Self { base, l2, shrink: lr * decay, decay, length, rule, constraint }
    }

    /// Whether the step needs no inner product.
    pub(crate) fn is_plain(&self) -> bool {
        (self.rule, self.constraint) == (StepRule::Raw, Constraint::Free)
    }

    /// The step of a group whose norm is held at `radius`.
    pub(crate) fn coefficients(&self, moments: Moments, radius: f64) -> Coefficients {
        let Moments { ww, wd, dd } = moments;
        if dd == 0.0 && self.decay == 0.0 {
            // Nothing to do, and rescaling by 1 ± rounding would be something.
            return Coefficients { a: 1.0, b: 0.0 };
        }
        let kept = 1.0 - self.shrink;
        let (a, b) = match self.rule {
            StepRule::Raw => (kept, -self.length),
            StepRule::Angular => self.turn(moments, kept),
            StepRule::RmsNormalized if dd < STILL => (kept, 0.0),
            StepRule::RmsNormalized => (kept, -self.length / dd.sqrt()),
            StepRule::TrustRatio => {
                let square = dd + 2.0 * self.decay * wd + self.decay * self.decay * ww;
                let trust = if ww == 0.0 || square < STILL { 1.0 } else { (ww / square).sqrt() };
                (1.0 - self.shrink * trust, -self.length * trust)
            }
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

    /// A step along the tangent t = d − (w·d/w·w)·w, as long as turns the weight by the angle.
    fn turn(&self, Moments { ww, wd, dd }: Moments, kept: f64) -> (f64, f64) {
        let tangent = dd - wd * wd / ww;
        // For a direction along the weight the difference is rounding. Written so that a NaN passes.
        if ww == 0.0 || dd < STILL || tangent <= 1e-12 * dd {
            return (kept, 0.0);
        }
        let b = -kept * self.length * (ww / tangent).sqrt();
        (kept - b * wd / ww, b)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::BaseUpdate;

    const MOMENTS: Moments = Moments { ww: 4.0, wd: 0.5, dd: 9.0 };
    const RULES: [StepRule; 4] =
        [StepRule::Raw, StepRule::Angular, StepRule::RmsNormalized, StepRule::TrustRatio];

    fn plan(rule: StepRule, constraint: Constraint, decay: f64) -> StepPlan {
        let base = BaseUpdate::sgd(0.9).step(1);
        StepPlan::new(base, 0.1, (0.0, decay), rule, constraint, 25)
    }

    fn norm_after(Moments { ww, wd, dd }: Moments, Coefficients { a, b }: Coefficients) -> f64 {
        (a * a * ww + 2.0 * a * b * wd + b * b * dd).sqrt()
    }

    #[test]
    fn fixed_lands_on_the_sphere_and_capped_inside_it() {
        for rule in RULES {
            let fixed = plan(rule, Constraint::Fixed, 0.0).coefficients(MOMENTS, 3.0);
            assert!((norm_after(MOMENTS, fixed) - 3.0).abs() < 1e-12);
            let free = plan(rule, Constraint::Free, 0.0).coefficients(MOMENTS, 3.0);
            let inside = plan(rule, Constraint::Capped, 0.0).coefficients(MOMENTS, 30.0);
            assert_eq!(inside, free);
            let capped = plan(rule, Constraint::Capped, 0.0).coefficients(MOMENTS, 1.0);
            assert!((norm_after(MOMENTS, capped) - 1.0).abs() < 1e-12);
        }
    }

    #[test]
    fn an_angular_step_turns_by_the_angle_whatever_the_direction() {
        for angle in [1e-4, 0.01, 0.2, 1.0] {
            for wd in [-5.9, -0.5, 0.0, 3.0, 5.999] {
                for (constraint, norm) in [
                    (Constraint::Fixed, 3.0),
                    (Constraint::Free, 2.0 / f64::cos(angle)),
                    (Constraint::Capped, 1.5),
                ] {
                    let moments = Moments { wd, ..MOMENTS };
                    let radius = if constraint == Constraint::Capped { 1.5 } else { 3.0 };
                    let plan = StepPlan {
                        length: angle.tan(),
                        ..plan(StepRule::Angular, constraint, 0.0)
                    };
                    let found @ Coefficients { a, b } = plan.coefficients(moments, radius);
                    let length = norm_after(moments, found);
                    assert!((length - norm).abs() < 1e-9, "{angle} {wd} {constraint:?}: {length}");
                    // cos = w·w'/(‖w‖·‖w'‖); the sine from the part of w' at right angles to w.
                    let cosine = (a * 4.0 + b * wd) / (2.0 * length);
                    let sine = b.abs() * (9.0 - wd * wd / 4.0).sqrt() / length;
                    let turned = sine.atan2(cosine);
                    assert!((turned / angle - 1.0).abs() < 1e-9, "{angle} {wd}: {turned}");
                    assert!(b < 0.0);
                }
            }
        }
        let along = Moments { ww: 4.0, wd: 6.0, dd: 9.0 };
        let found = plan(StepRule::Angular, Constraint::Free, 0.0).coefficients(along, 3.0);
        assert_eq!(found, Coefficients { a: 1.0, b: 0.0 });
    }

    #[test]
    fn an_rms_step_changes_elements_by_the_learning_rate() {
        let plan = plan(StepRule::RmsNormalized, Constraint::Free, 0.0);
        let Coefficients { a, b } = plan.coefficients(MOMENTS, f64::NAN);
        assert_eq!(a, 1.0);
        // 25 elements: a change of norm 0.1·5.
        assert!((b * MOMENTS.dd.sqrt() + 0.5).abs() < 1e-12);
    }

    #[test]
    fn a_trusted_step_has_the_length_lr_times_the_weights_norm() {
        for decay in [0.0, 0.3] {
            let plan = plan(StepRule::TrustRatio, Constraint::Free, decay);
            let Coefficients { a, b } = plan.coefficients(MOMENTS, f64::NAN);
            // The difference to the weight: (a − 1)·w + b·d.
            let Moments { ww, wd, dd } = MOMENTS;
            let square = (a - 1.0).powi(2) * ww + 2.0 * (a - 1.0) * b * wd + b * b * dd;
            assert!((square.sqrt() - 0.1 * ww.sqrt()).abs() < 1e-12);
            assert!(((a - 1.0) - decay * b).abs() < 1e-12, "along d + λ·w");
        }
        let still = Moments { wd: 0.0, dd: 0.0, ..MOMENTS };
        let decayed = plan(StepRule::TrustRatio, Constraint::Free, 0.3);
        assert!((decayed.coefficients(still, 1.0).a - 0.9).abs() < 1e-12);
        let zero = Moments { ww: 0.0, wd: 0.0, ..MOMENTS };
        assert_eq!(decayed.coefficients(zero, 1.0).b, -0.1);
    }

    #[test]
    fn zero_direction_moves_nothing() {
        let still = Moments { wd: 0.0, dd: 0.0, ..MOMENTS };
        for rule in RULES {
            let found = plan(rule, Constraint::Fixed, 0.0).coefficients(still, 3.0);
            assert_eq!(found, Coefficients { a: 1.0, b: 0.0 });
        }
    }

    #[test]
    fn a_direction_that_has_died_away_is_not_lengthened() {
        for (wd, dd) in [(0.0, 1e-80), (1e-41, 1e-80), (0.0, 1e-37)] {
            let moments = Moments { ww: 4.0, wd, dd };
            for rule in RULES {
                let Coefficients { a, b } =
                    plan(rule, Constraint::Fixed, 0.0).coefficients(moments, 2.0);
                assert!((a - 1.0).abs() < 1e-12 && b.abs() <= 0.1, "{rule:?}: {a}, {b}");
            }
        }
    }

    #[test]
    fn nan_is_passed_on() {
        let broken = Moments { dd: f64::NAN, ..MOMENTS };
        for rule in RULES {
            let found = plan(rule, Constraint::Fixed, 0.0).coefficients(broken, 3.0);
            assert!(found.a.is_nan() && found.b.is_nan(), "{rule:?}");
        }
    }
}
