//! One model brought nearer to another: what averages of models are made of.

use std::collections::VecDeque;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::Tensor;
use fixnorm_nn::Classifier;

/// What is averaged of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Of {
    /// Weights and running statistics.
    All,
    /// What is not learned: the running statistics.
    Statistics,
}

impl Of {
    fn takes<const D: usize>(self, param: &Param<Tensor<D>>) -> bool {
        self == Self::All || !param.is_require_grad()
    }
}

/// `model + share·(other − model)`, where `model` is, with autodiff if it has it. Models alike stay as they are.
pub(crate) fn toward(model: Classifier, other: &Classifier, share: f64, of: Of) -> Classifier {
    let mut values = Values { of, values: VecDeque::new() };
    // `valid` brings the running statistics up to date: Burn keeps the last update aside. `train` says again what is learned.
    other.valid().train().visit(&mut values);
    let mut average = Average { of, values: values.values, share };
    let model = model.map(&mut average);
    debug_assert!(average.values.is_empty());
    model
}

/// A model's numbers, in the order of its fields.
struct Values {
    of: Of,
    values: VecDeque<Tensor<1>>,
}

impl ModuleVisitor for Values {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if self.of.takes(param) {
            self.values.push_back(param.val().inner().flatten(0, D - 1));
        }
    }
}

struct Average {
    of: Of,
    values: VecDeque<Tensor<1>>,
    share: f64,
}

impl ModuleMapper for Average {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if !self.of.takes(&param) {
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
