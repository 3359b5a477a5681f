//! From weight decay to FixNorm: which learning rate and α do the same.
//! Not here: reading runs and weights (crate `fixnorm-train`).
//!
//! A scale-invariant weight held at ρ turns as fast as one of norm ‖w‖ when η_fix/ρ² = η/‖w‖². A model has one
//! learning rate, so the layers' values are brought to one by their geometric mean.

use fixnorm::{ParamRole, Radius, Scope};

/// The square of the norm of a whole weight whose groups have the norm that [`Radius`] means under `scope`; `norm` is
/// that of the whole weight at setup.
pub fn radius_square(radius: Radius, scope: Scope, param: &ParamRole, norm: f64) -> f64 {
    let groups = match (scope, radius) {
        // The groups' own norms, whatever they are, make up the whole one.
        (Scope::Tensor, _) | (_, Radius::Init) => 1,
        (Scope::OutputChannel, _) => param.c_out(),
    };
    groups as f64 * radius.of_group(scope, param.c_out(), norm).powi(2)
}

/// Geometric mean; none of no values.
pub fn geometric_mean(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let (mut sum, mut count) = (0.0, 0);
    for value in values {
        sum += value.ln();
        count += 1;
    }
    (count > 0).then(|| (sum / f64::from(count)).exp())
}

/// The peak angle of a schedule along which a weight turns as far as along the measured steps: √(Σθ²/Σh²) over pairs of a
/// measured angle θ and the schedule's height h there. Directions of different steps count as independent, as at the
/// equilibrium of decay, so that a few large angles at the start weigh more than many small ones behind them. None
/// without a height.
pub fn peak_angle(measured: impl IntoIterator<Item = (f64, f64)>) -> Option<f64> {
    let (mut angles, mut heights) = (0.0, 0.0);
    for (angle, height) in measured {
        angles += angle * angle;
        heights += height * height;
    }
    (heights > 0.0).then(|| (angles / heights).sqrt())
}

/// α of a head of this norm: ‖W‖_F/√C.
pub fn alpha_of(norm: f64, classes: usize) -> f64 {
    norm / (classes as f64).sqrt()
}

/// A first α for a model whose features have this RMS norm: with label smoothing ε the loss is least at the logit
/// gap G = ln(C(1 − ε)/ε + 1), which a head of α = G·(C − 1)/(C·r) reaches with features along its rows. Without
/// smoothing the gap is that of a target probability of 0.9.
pub fn first_alpha(classes: usize, label_smoothing: f64, feature_norm: f64) -> f64 {
    let c = classes as f64;
    let smoothing = if label_smoothing > 0.0 { label_smoothing } else { 0.1 * c / (c - 1.0) };
    let gap = (c * (1.0 - smoothing) / smoothing + 1.0).ln();
    gap * (c - 1.0) / (c * feature_norm)
}

#[cfg(test)]
mod tests {
    use super::*;
    use fixnorm::Role;

    #[test]
    fn means_and_alphas() {
        assert_eq!(geometric_mean([]), None);
        assert!((geometric_mean([0.5, 8.0]).unwrap() - 2.0).abs() < 1e-12);
        assert_eq!(alpha_of(6.0, 9), 2.0);
        // Without smoothing the target of the correct class is 0.9, as it is with ε = 0.1·C/(C − 1).
        let plain = first_alpha(10, 0.0, 2.0);
        assert!((plain - first_alpha(10, 1.0 / 9.0, 2.0)).abs() < 1e-12);
        assert!((plain - 81f64.ln() * 0.9 / 2.0).abs() < 1e-12);
    }

    #[test]
    fn a_peak_angle_turns_as_far_as_what_was_measured() {
        assert_eq!(peak_angle([]), None);
        let along = [(0.02, 1.0), (0.01, 0.5), (0.0, 0.0)];
        assert!((peak_angle(along).unwrap() - 0.02).abs() < 1e-12);
        // Angles that fall to nothing long before the schedule: the mean of logarithms would be 0.001.
        let falling = [(0.1, 1.0), (0.001, 1.0), (0.00001, 1.0)];
        assert!((peak_angle(falling).unwrap() - 0.1 / 3f64.sqrt()).abs() < 1e-5);
    }

    #[test]
    fn alpha_reaches_the_optimal_gap() {
        // Features of norm r along w_y − mean(w): with rows of RMS norm α on a simplex, the gap is α·r·C/(C − 1).
        for (classes, smoothing, norm) in [(10, 0.1, 4.0), (1000, 0.1, 20.0), (2, 0.2, 1.0)] {
            let alpha = first_alpha(classes, smoothing, norm);
            let c = classes as f64;
            let gap = alpha * norm * c / (c - 1.0);
            let p = gap.exp() / (gap.exp() + c - 1.0);
            let target = 1.0 - smoothing + smoothing / c;
            assert!((p - target).abs() < 1e-9, "{p} against {target}");
        }
        let gap = first_alpha(10, 0.0, 1.0) * 10.0 / 9.0;
        let p = gap.exp() / (gap.exp() + 9.0);
        assert!((p - 0.9).abs() < 1e-9, "{p}");
    }

    #[test]
    fn radii_of_tensors_and_channels() {
        let param = ParamRole {
            path: "conv.weight".to_owned(),
            shape: vec![16, 3, 3, 3],
            role: Role::ScaleInvariant,
            channel_axis: Some(0),
            channel_invariant: true,
            deviation: None,
            overridden: false,
        };
        let square = |radius, scope| radius_square(radius, scope, &param, 5.0);
        assert_eq!(square(Radius::SqrtCOut, Scope::Tensor), 16.0);
        assert_eq!(square(Radius::SqrtCOut, Scope::OutputChannel), 16.0);
        assert_eq!(square(Radius::Unit, Scope::Tensor), 1.0);
        assert_eq!(square(Radius::Init, Scope::OutputChannel), 25.0);
        assert_eq!(square(Radius::Value { norm: 2.0 }, Scope::OutputChannel), 64.0);
    }
}
