//! Linear layers: products of Burn's on a CPU, of ours on a GPU.

use burn::nn::Linear;
use burn::nn::conv::Conv2d;
use burn::tensor::Tensor;

use super::pass::Pass;
#[cfg(feature = "gpu")]
use crate::gpu;

/// A 1×1 convolution of single pixels, `[n, c_in]` to `[n, c_out]`.
pub(crate) fn pointwise(conv: &Conv2d, x: Tensor<2>, pass: Pass<'_>) -> Tensor<2> {
    let weight = conv.weight.val();
    let [c_out, c_in, _, _] = weight.dims();
    let weight = weight.reshape([c_out, c_in]);
    #[cfg(feature = "gpu")]
    if pass.uses_gpu_kernels(&x) {
        return with_bias(gpu::conv::linear(x, weight), &conv.bias);
    }
    #[cfg(not(feature = "gpu"))]
    let _ = pass;
    with_bias(x.matmul(weight.transpose()), &conv.bias)
}

/// A linear layer, `[n, c_in]` to `[n, c_out]`.
pub(crate) fn linear(layer: &Linear, x: Tensor<2>, pass: Pass<'_>) -> Tensor<2> {
    #[cfg(feature = "gpu")]
    if pass.uses_gpu_kernels(&x) {
        return with_bias(gpu::conv::linear(x, layer.weight.val().transpose()), &layer.bias);
    }
    #[cfg(not(feature = "gpu"))]
    let _ = pass;
    layer.forward(x)
}

fn with_bias(y: Tensor<2>, bias: &Option<burn::module::Param<Tensor<1>>>) -> Tensor<2> {
    match bias {
        Some(bias) => y + bias.val().unsqueeze(),
        None => y,
    }
}
