//! Small operations composed of Burn's: layouts, precisions, activations.

use burn::tensor::{DType, Tensor, activation};
use fixnorm_kernels::Activation;

/// The activation composed of Burn's operations.
pub(crate) fn apply<const D: usize>(activation: Activation, x: Tensor<D>) -> Tensor<D> {
    let hard_sigmoid = |x: Tensor<D>| x.add_scalar(3.0).clamp(0.0, 6.0).div_scalar(6.0);
    match activation {
        Activation::Identity => x,
        Activation::Relu => activation::relu(x),
        Activation::Relu6 => x.clamp(0.0, 6.0),
        Activation::Silu => activation::silu(x),
        Activation::HardSwish => x.clone() * hard_sigmoid(x),
        Activation::HardSigmoid => hard_sigmoid(x),
        Activation::Sigmoid => activation::sigmoid(x),
    }
}

/// `x` in this precision.
pub(crate) fn in_precision<const D: usize>(x: Tensor<D>, dtype: DType) -> Tensor<D> {
    if x.dtype() == dtype { x } else { x.cast(dtype) }
}

// Between two operations these cancel: only the view changes, and no copy is made.
pub(crate) fn to_nchw(x: Tensor<4>) -> Tensor<4> {
    x.permute([0, 3, 1, 2])
}

pub(crate) fn to_nhwc(x: Tensor<4>) -> Tensor<4> {
    x.permute([0, 2, 3, 1])
}
