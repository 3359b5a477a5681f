//! Interpolation between two models, which averages of models are built on.

use std::collections::VecDeque;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::Tensor;

/// The tensors of a model that an average takes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Averaged {
    /// Weights and running statistics.
    All,
    /// Running statistics: what is not learned.
    Statistics,
}

impl Averaged {
    fn includes<const D: usize>(self, param: &Param<Tensor<D>>) -> bool {
        self == Self::All || !param.is_require_grad()
    }
}

/// `model + share·(other − model)` for these tensors, on the device of `model`. Equal models stay as they are.
///
/// # Panics
/// If the models have other fields or shapes.
pub fn interpolate<M: Module>(model: M, other: &M, share: f64, tensors: Averaged) -> M {
    let mut values = Values { tensors, values: VecDeque::new() };
    // `valid` brings the running statistics up to date: Burn keeps the last update aside. `train` marks again what is learned.
    other.valid().train().visit(&mut values);
    let mut average = Average { tensors, values: values.values, share };
    let model = model.map(&mut average);
    debug_assert!(average.values.is_empty());
    model
}

/// A model's values, in the order of its fields.
struct Values {
    tensors: Averaged,
    values: VecDeque<Tensor<1>>,
}

impl ModuleVisitor for Values {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if self.tensors.includes(param) {
            self.values.push_back(param.val().inner().flatten(0, D - 1));
        }
    }
}

struct Average {
    tensors: Averaged,
    values: VecDeque<Tensor<1>>,
    share: f64,
}

impl ModuleMapper for Average {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if !self.tensors.includes(&param) {
            return param;
        }
        let value = self.values.pop_front().expect("both models have the same fields");
        param.map(|own| {
            let device = own.device();
            let value = value.to_device(&device.clone().inner()).reshape(own.shape());
            let value = if device.is_autodiff() { Tensor::from_inner(value) } else { value };
            let apart = value - own.clone();
            own + apart.mul_scalar(self.share)
        })
    }
}
