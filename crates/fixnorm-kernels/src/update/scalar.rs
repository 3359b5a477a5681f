//! The plainest form of [`update`](super::update): one element after the other, all in `f64`.
//! The fast form is tested against it.

use super::{Base, Coefficients, Groups, Moments};

/// Same contract as [`update`](super::update); four passes and no blocks.
pub fn update(
    weight: &mut [f32],
    grad: &mut [f32],
    base: &mut Base<'_>,
    l2: f32,
    groups: Groups,
    mut rule: impl FnMut(usize, Moments) -> Coefficients,
) {
    let mut direction = Vec::with_capacity(weight.len());
    for index in 0..weight.len() {
        let g = f64::from(grad[index]) + f64::from(l2) * f64::from(weight[index]);
        direction.push(element(base, index, g));
    }
    let group_of = |index: usize| (index / groups.inner) % groups.count;
    let mut moments = vec![Moments::default(); groups.count];
    for (index, (&w, &d)) in weight.iter().zip(&direction).enumerate() {
        let (w, sums) = (f64::from(w), &mut moments[group_of(index)]);
        sums.ww += w * w;
        sums.wd += w * d;
        sums.dd += d * d;
    }
    let coefficients: Vec<_> =
        moments.iter().enumerate().map(|(group, &moments)| rule(group, moments)).collect();
    for (index, (w, &d)) in weight.iter_mut().zip(&direction).enumerate() {
        let Coefficients { a, b } = coefficients[group_of(index)];
        *w = (a * f64::from(*w) + b * d) as f32;
    }
}

/// Advances the states of one element and returns its direction.
fn element(base: &mut Base<'_>, index: usize, g: f64) -> f64 {
    match base {
        Base::Sgd { velocity, momentum, nesterov } => {
            let momentum = f64::from(*momentum);
            let u = momentum * f64::from(velocity[index]) + g;
            velocity[index] = u as f32;
            if *nesterov { g + momentum * u } else { u }
        }
        Base::RmsProp { square_average, velocity, alpha, momentum, epsilon, lr } => {
            let alpha = f64::from(*alpha);
            let s = alpha * f64::from(square_average[index]) + (1.0 - alpha) * g * g;
            let root = (s + f64::from(*epsilon)).sqrt();
            let u = f64::from(*momentum) * f64::from(velocity[index]) + f64::from(*lr) * g / root;
            square_average[index] = s as f32;
            velocity[index] = u as f32;
            u
        }
        Base::Adam { first_moment, second_moment, betas, epsilon, corrections } => {
            let (beta1, beta2) = (f64::from(betas.0), f64::from(betas.1));
            let m = beta1 * f64::from(first_moment[index]) + (1.0 - beta1) * g;
            let v = beta2 * f64::from(second_moment[index]) + (1.0 - beta2) * g * g;
            first_moment[index] = m as f32;
            second_moment[index] = v as f32;
            (m / corrections.0) / ((v / corrections.1).sqrt() + f64::from(*epsilon))
        }
    }
}
