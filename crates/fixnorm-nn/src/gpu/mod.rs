//! Operations of our own on the GPUs that Burn reaches, in CubeCL: what its operations take several passes for, or have no fast
//! way back from. Convolutions that are not depthwise are Burn's.

pub(crate) mod depthwise;
mod depthwise_kernels;
pub(crate) mod norm;
mod norm_kernels;
pub(crate) mod pixels;
mod rows;

use burn::backend::DispatchDevice;
use burn::tensor::Tensor;

use crate::chain::blocks_are_fused;

/// Whether operations of our own take `x`.
pub(crate) fn takes(x: &Tensor<4>) -> bool {
    blocks_are_fused() && matches!(x.device().inner().as_dispatch(), DispatchDevice::Cube(_))
}
