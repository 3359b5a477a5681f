//! What weight decay settles at: the equilibrium of a scale-invariant weight, to put beside measurement.
//! Not here: measuring (`measure.rs`).
//!
//! Gradients of a scale-invariant weight are at right angles to it and push its norm up, decay pulls it
//! down. Where both balance, and gradients of different steps are uncorrelated, a step turns the weight by an
//! angle that learning rate, decay and momentum alone decide: √(2ηλ/(1 + μ)) for SGD with L2 (Wan et al.,
//! [2006.08419](https://arxiv.org/abs/2006.08419)), √(2ηλ·(1 − β₁)/(1 + β₁)) for AdamW (Kosson et al.,
//! [2305.17212](https://arxiv.org/abs/2305.17212)), and by the same argument √(2ηλ·(1 − μ)/(1 + μ)) for RMSProp with decoupled
//! decay, momentum μ and an ε far below the squared gradient, ours. Correlated gradients, a learning rate that changes faster than
//! the lag, and ηλ that is not small are where it stops holding.

use fixnorm::base::{AdamW, RmsProp, Sgd};
use fixnorm::{BaseUpdate, DecayKind};

/// The equilibrium of a scale-invariant weight under weight decay.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Equilibrium {
    /// The angular update, in radians.
    pub angular_update: f64,
    /// Steps after which the distance from the equilibrium has fallen by a factor of e: of ‖w‖⁴ for SGD, whose gradients
    /// shrink as the weight grows, and of ‖w‖² for Adam and RMSProp.
    pub lag_steps: f64,
    /// ‖w‖⁴ over the mean square of the gradient at ‖w‖ = 1, for SGD; none for Adam and RMSProp, whose step does
    /// not depend on the gradient's size.
    norm_factor: Option<f64>,
}

impl Equilibrium {
    /// The equilibrium of a weight trained at the learning rate `lr` with decay λ = `decay`; none for RMSProp and Adam with
    /// L2, whose angle depends on the gradient's size, and where nothing decays.
    ///
    /// For Nesterov's momentum and for SGD with decoupled decay the formula is ours, by the same argument: the
    /// squared length of a step over that of a gradient, times twice the rate at which decay shrinks the norm.
    pub fn of(base: &BaseUpdate, kind: DecayKind, lr: f64, decay: f64) -> Option<Self> {
        let rate = lr * decay;
        if !(rate > 0.0 && rate.is_finite()) {
            return None;
        }
        let is_decoupled = kind == DecayKind::Decoupled;
        let (momentum, nesterov, normalized) = match *base {
            BaseUpdate::Sgd(Sgd { momentum, nesterov }) => (momentum, nesterov, false),
            BaseUpdate::AdamW(AdamW { beta1, .. }) if is_decoupled => (beta1, false, true),
            BaseUpdate::RmsProp(RmsProp { momentum, .. }) if is_decoupled => {
                (momentum, false, true)
            }
            _ => return None,
        };
        // L2 goes through the momentum, which multiplies all that is constant by 1/(1 − μ).
        let shrink = match kind {
            DecayKind::L2 => rate / (1.0 - momentum),
            DecayKind::Decoupled => rate,
        };
        // ‖d‖² over ‖g‖² for directions d = Σ μᵏ·g, and what a gradient adds up to over time, 1/(1 − μ), squared.
        let lengths = if nesterov {
            (1.0 + momentum).powi(2) + momentum.powi(4) / (1.0 - momentum * momentum)
        } else {
            1.0 / (1.0 - momentum * momentum)
        };
        let sum = (1.0 - momentum).powi(-2);
        let norm_factor = lr * lr * sum / (2.0 * shrink);
        Some(Self {
            angular_update: (2.0 * shrink * lengths / sum).sqrt(),
            // Decay takes 4s of ‖w‖⁴ a step, or 2s of ‖w‖², at the rate s.
            lag_steps: if normalized { 0.5 } else { 0.25 } / shrink,
            norm_factor: (!normalized).then_some(norm_factor),
        })
    }

    /// The norm it settles at, for a gradient of this norm at ‖w‖ = 1; none for Adam and RMSProp.
    pub fn norm(&self, unit_gradient_norm: f64) -> Option<f64> {
        Some((self.norm_factor? * unit_gradient_norm * unit_gradient_norm).sqrt().sqrt())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_formulas() {
        let of = |base, kind| Equilibrium::of(&base, kind, 0.1, 0.01).unwrap();
        let sgd = of(BaseUpdate::sgd(0.9), DecayKind::L2);
        assert!((sgd.angular_update / (2.0f64 * 0.001 / 1.9).sqrt() - 1.0).abs() < 1e-12);
        assert!((sgd.lag_steps / (0.1 / 0.004) - 1.0).abs() < 1e-12);
        // ‖w‖⁴ = η·L/(2λ·(1 − μ)).
        let norm = (0.1f64 * 9.0 / (2.0 * 0.01 * 0.1)).powf(0.25);
        assert!((sgd.norm(3.0).unwrap() / norm - 1.0).abs() < 1e-12);
        let adamw = of(BaseUpdate::adamw(), DecayKind::Decoupled);
        let expected = (2.0f64 * 0.001 * 0.1 / 1.9).sqrt();
        assert!((adamw.angular_update / expected - 1.0).abs() < 1e-12);
        assert!((adamw.lag_steps / (0.5 / 0.001) - 1.0).abs() < 1e-12);
        assert_eq!(adamw.norm(1.0), None);
        // As AdamW, with its momentum in the place of β₁.
        let rms_prop = of(
            BaseUpdate::RmsProp(RmsProp { momentum: 0.9, ..RmsProp::default() }),
            DecayKind::Decoupled,
        );
        assert!((rms_prop.angular_update / expected - 1.0).abs() < 1e-12);
        assert_eq!((rms_prop.norm(1.0), rms_prop.lag_steps), (None, adamw.lag_steps));
    }

    #[test]
    fn nothing_to_say_where_nothing_decays_or_nothing_is_known() {
        let of = |base, kind, lr, decay| Equilibrium::of(&base, kind, lr, decay);
        assert_eq!(of(BaseUpdate::sgd(0.9), DecayKind::L2, 0.1, 0.0), None);
        assert_eq!(of(BaseUpdate::sgd(0.9), DecayKind::L2, 0.0, 0.1), None);
        assert_eq!(of(BaseUpdate::rmsprop(), DecayKind::L2, 0.1, 0.1), None);
        assert_eq!(of(BaseUpdate::adamw(), DecayKind::L2, 0.1, 0.1), None);
    }
}
