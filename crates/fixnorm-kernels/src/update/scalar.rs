//! The plainest form of [`update`](super::update): one element after the other, all in `f64`.
//! The fast form is tested against it.

use super::{BaseStep, Coefficients, Groups, Moments, States};

/// Same contract as [`update`](super::update); four passes and no blocks.
pub fn update(
    weight: &mut [f32],
    grad: &mut [f32],
    states: States<'_>,
    base: &BaseStep,
    l2: f32,
    groups: Groups,
    mut rule: impl FnMut(usize, Moments) -> Coefficients,
) {
    let mut direction = Vec::with_capacity(weight.len());
    for index in 0..weight.len() {
        let g = f64::from(grad[index]) + f64::from(l2) * f64::from(weight[index]);
        let second = states.second.get(index).copied().unwrap_or_default();
        let (u, s, d) = base.advance_element(g, states.first[index].into(), second.into());
        states.first[index] = u as f32;
        if let Some(second) = states.second.get_mut(index) {
            *second = s as f32;
        }
        direction.push(d);
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
