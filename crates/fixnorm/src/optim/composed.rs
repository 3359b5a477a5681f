//! The step composed of tensor operations, for any backend and dtype. The three inner products of each group are read back,
//! so that the factors come from the one function that has the rule; nothing else leaves the device.

use burn::tensor::{DType, Tensor, TensorData};
use fixnorm_kernels::update::{Moments, Scaling};

use super::plan::StepPlan;
use super::{NormOptimizer, NormState};

impl NormOptimizer {
    pub(super) fn step_composed<const D: usize>(
        &self,
        plan: &StepPlan,
        w: Tensor<D>,
        grad: Tensor<D>,
        state: NormState<D>,
    ) -> (Tensor<D>, NormState<D>) {
        let grad = if plan.l2 == 0.0 { grad } else { grad + w.clone().mul_scalar(plan.l2) };
        let (direction, state) = self.direction(plan, grad, state);
        if plan.is_plain() {
            let kept = w.mul_scalar(1.0 - plan.shrink);
            return (kept + direction.mul_scalar(-plan.length), state);
        }
        let products = [(&w, &w), (&w, &direction), (&direction, &direction)];
        let sums = products.map(|(x, y)| self.group_sums(x.clone() * y.clone()));
        let groups = sums[0].len();
        let radii: Vec<f64> = match &state.radius {
            Some(radius) => radius.to_data().convert::<f32>().iter().collect(),
            None => vec![1.0; groups],
        };
        let factors: Vec<_> = (0..groups)
            .map(|group| {
                let [ww, wd, dd] = [0, 1, 2].map(|product| sums[product][group]);
                plan.coefficients(Moments { ww, wd, dd }, radii[group])
            })
            .collect();
        let mut shape = [1; D];
        if let Some(axis) = self.channel_axis {
            shape[axis] = groups;
        }
        let factor = |values: Vec<f64>| {
            let data = TensorData::new(values, shape);
            Tensor::<D>::from_data(data, (&w.device(), w.dtype()))
        };
        let a = factor(factors.iter().map(|factor| factor.a).collect());
        let b = factor(factors.iter().map(|factor| factor.b).collect());
        (w * a + direction * b, state)
    }

    /// The sum of each group's elements.
    fn group_sums<const D: usize>(&self, x: Tensor<D>) -> Vec<f64> {
        let (axis, shape) = (self.channel_axis.unwrap_or(0), x.dims());
        let (rows, len) = (shape[axis], shape.iter().product::<usize>());
        let sums = x.cast(DType::F32).swap_dims(0, axis).reshape([rows, len / rows]).sum_dim(1);
        let sums = if self.channel_axis.is_some() { sums } else { sums.sum_dim(0) };
        sums.into_data().iter().collect()
    }

    /// The base update's direction and the states after it, by the recurrence of `BaseStep`.
    fn direction<const D: usize>(
        &self,
        plan: &StepPlan,
        grad: Tensor<D>,
        state: NormState<D>,
    ) -> (Tensor<D>, NormState<D>) {
        let base = plan.base;
        let NormState { first, second, steps, radius } = state;
        let second =
            if base.has_second() { second.or_else(|| self.initial_second(&grad)) } else { second };
        let squares = |inflow: f32| {
            second.clone().map(|s| s.clone() + (grad.clone() * grad.clone() - s).mul_scalar(inflow))
        };
        let (inflow, second, scale) = match base.scaling {
            Scaling::None => (grad.clone(), second, None),
            Scaling::Gradient { inflow, epsilon } => {
                let s = squares(inflow).expect("this base update has a second state");
                (grad.clone() / s.clone().add_scalar(epsilon).sqrt(), Some(s), None)
            }
            Scaling::Direction { inflow, root, epsilon } => {
                let s = squares(inflow).expect("this base update has a second state");
                let scale = s.clone().sqrt().mul_scalar(root).add_scalar(epsilon);
                (grad.clone(), Some(s), Some(scale))
            }
        };
        let first = first.mul_scalar(base.momentum) + inflow.mul_scalar(base.gain);
        let mut direction = first.clone();
        if !base.direction_is_first() {
            direction = direction.mul_scalar(base.output) + grad.mul_scalar(base.lookahead);
        }
        if let Some(scale) = scale {
            direction = direction / scale;
        }
        (direction, NormState { first, second, steps, radius })
    }
}
